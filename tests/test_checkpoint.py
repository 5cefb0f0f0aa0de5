"Checkpoints broken in every way we can think of, and saves that fail. Run: pytest tests/test_checkpoint.py"
import os, resource, shutil, warnings
from contextlib import contextmanager
import pytest, torch
from torch import Tensor
from oniris.diffusion.edm import Denoiser
from oniris.nn.unet import UNet
from oniris.training.checkpoint import CheckpointError, best_checkpoint, checkpoints, load_checkpoint, save_checkpoint, verify_checkpoint
from oniris.training.ema import PowerEMA

FILES = 'config.json', 'ema.pt', 'manifest.json', 'model.safetensors', 'optim.pt', 'state.json'
WAYS = 'first bit', 'middle bit', 'last bit', 'truncated', 'emptied', 'deleted', 'swapped'

def fresh(seed=0):
    torch.manual_seed(seed)
    model = Denoiser(UNet(resolution=4, channels=2, model_channels=8, channel_mult=(1,)))
    return model, {'optim': torch.optim.AdamW(model.parameters()), 'ema': PowerEMA(model)}

def one_step(model, things, step):
    model(torch.randn(1, 2, 2, 2, 4, 4), torch.ones(1, 2, 2)).square().mean().backward()
    things['optim'].step()
    things['ema'].update(step)

@pytest.fixture
def run(tmp_path):
    model, things = fresh()
    for step in (10, 20):
        one_step(model, things, step)
        save_checkpoint(tmp_path/'run', model, {'step': step}, things)
    return tmp_path/'run'

@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield

def same(a, b): # equal bit for bit: tensors, and containers of them
    if isinstance(a, Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b

def damage(f, how, other):
    data, flips = bytearray(f.read_bytes()), {'first bit': 0, 'middle bit': f.stat().st_size//2, 'last bit': -1}
    if how == 'deleted': return f.unlink()
    if how == 'swapped': return shutil.copy(other, f)
    if how in flips: data[flips[how]] ^= 1
    f.write_bytes(data[:-1] if how == 'truncated' else b'' if how == 'emptied' else bytes(data))

@pytest.mark.parametrize('file', FILES)
def test_a_damaged_file_is_named_and_never_loaded(run, file):
    assert tuple(sorted(p.name for p in checkpoints(run)[-1].iterdir())) == FILES
    for how in WAYS:
        copy = run.parent/how
        shutil.copytree(run, copy)
        old = copy/'step-00000010'
        damage(copy/'step-00000020'/file, how, old/file)
        model, things = fresh(seed=1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            assert load_checkpoint(copy, model, things)['step'] == 10, (file, how)
        assert 'step-00000020' in str(said[0].message) and (file in str(said[0].message) or file == 'manifest.json'), (file, how)

def test_a_bit_at_every_third_position_of_the_small_files(run):
    _, things = fresh()
    newest = checkpoints(run)[-1]
    for file in (f for f in FILES if f.endswith('.json')):
        data = (newest/file).read_bytes()
        for k in range(0, len(data), 3):
            flipped = bytearray(data)
            flipped[k] ^= 1 << k % 8
            (newest/file).write_bytes(bytes(flipped))
            with pytest.raises(CheckpointError): verify_checkpoint(newest, things)
        (newest/file).write_bytes(data)

def test_a_directory_under_another_name(run, quiet):
    shutil.rmtree(run/'step-00000020')
    (run/'step-00000010').rename(run/'step-00000020')
    with pytest.raises(CheckpointError, match='holds step 10'): load_checkpoint(run, *fresh())

def test_a_file_that_no_manifest_lists(run, quiet):
    model, things = fresh()
    with pytest.raises(CheckpointError, match='does not list fit.pt'): load_checkpoint(run, model, {**things, 'fit': things['ema']})

class Evil:
    def __reduce__(self): return (print, ('you should never read this',))
    def state_dict(self): return self

def test_a_pickle_that_runs_code_is_refused(tmp_path, quiet, capsys):
    model, things = fresh()
    save_checkpoint(tmp_path, model, {'step': 1}, {'optim': Evil()})
    with pytest.raises(CheckpointError, match='optim.pt'): load_checkpoint(tmp_path, model, {'optim': things['optim']})
    assert 'never' not in capsys.readouterr().out

def test_the_best_is_broken(tmp_path):
    model, _ = fresh()
    for step in (1, 2): save_checkpoint(tmp_path, model, {'step': step, 'best': {'step': 1, 'loss': 1.}})
    (tmp_path/'step-00000001/manifest.json').unlink()
    assert best_checkpoint(tmp_path).name == 'step-00000002' and best_checkpoint(tmp_path/'nothing') is None

@contextmanager
def no_file_beyond(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

def test_a_disk_that_fills_up_at_any_byte(run):
    model, things = fresh()
    one_step(model, things, 30)
    largest = max(p.stat().st_size for p in checkpoints(run)[-1].iterdir())
    for n in {0, 1, 100, *range(0, largest, largest//6 + 1)}:
        with no_file_beyond(n), pytest.raises(CheckpointError, match='too large'): save_checkpoint(run, model, {'step': 30}, things)
        assert sorted(p.name for p in run.iterdir()) == ['step-00000010', 'step-00000020']
    again, others = fresh(seed=1)
    assert load_checkpoint(run, again, others)['step'] == 20

@contextmanager
def read_only(path): # nobody can write in it; root, who may write everywhere, steps down for the moment
    root = os.geteuid() == 0
    path.chmod(0o555)
    for p in path.parents:
        if str(p).startswith(('/tmp/', '/var/', '/private/')): p.chmod(0o755)
    if root: os.seteuid(65534)
    try: yield
    finally:
        if root: os.seteuid(0)
        path.chmod(0o755)

def test_a_directory_that_cannot_be_written(run):
    model, things = fresh()
    with read_only(run), pytest.raises(CheckpointError, match='Permission denied.*untouched: .*step-00000020'):
        save_checkpoint(run, model, {'step': 30}, things)
    (run.parent/'file').write_text('no directory')
    with pytest.raises(CheckpointError, match='Not a directory'): save_checkpoint(run.parent/'file', model, {'step': 1})
    assert load_checkpoint(run, *fresh(seed=1))['step'] == 20

def test_a_loaded_run_is_the_saved_one(run):
    model, things = fresh()
    for step in (10, 20): one_step(model, things, step)
    again, others = fresh(seed=1)
    save_checkpoint(run, model, {'step': 30}, things)
    load_checkpoint(run, again, others)
    assert same(model.state_dict(), again.state_dict())
    for k in things: assert same(things[k].state_dict(), others[k].state_dict())
