"""Commands compose with their defaults, and a user's mistake is one line and exit status 1 before any work. Run: pytest tests/test_commands.py

In one process, because each start of Python with torch takes seconds; `test_in_a_shell` looks at a real one."""
import subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from gymnasium.spaces import Discrete
from oniris.codec.latents import oniris_encode
from oniris.codec.train_vae import oniris_train_vae
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.record import oniris_record
from oniris.data.spaces import describe_space
from oniris.data.sources import oniris_import
from oniris.dream.train_reward import oniris_train_reward
from oniris.dream.rollout import oniris_dream
from oniris.dream.run import load_run
from oniris.evaluation.evaluate import oniris_evaluate
from oniris.frames import save_gif
from oniris.play.screen import oniris_play
from oniris.recipes.demo import oniris_demo
from oniris.recipes.train_world import oniris_train
from oniris.training.checkpoint import read_log

def refused(says, command, **options):
    "The command leaves with one line that says so."
    with pytest.raises(SystemExit) as e: command(**options)
    said = e.value.code
    assert isinstance(said, str) and '\n' not in said.strip() and said.strip(), repr(said)
    assert says in said, said

def moving(frames, side, seed=0):
    g = np.random.default_rng(seed)
    video = np.full((frames, side, side, 3), 30, np.uint8)
    for t in range(frames):
        x = int(side / 2 + side / 3 * np.sin(t / 4 + seed))
        video[t, side // 3:side // 2, max(0, x - 3):x + 3] = g.integers(120, 255, 3)
    return video

def dataset(path, side=16, frames=16, clips=8, **more):
    about = dict(env_id='Moving-v0', env={}, action_space=describe_space(Discrete(3)), skip=1)
    with Writer(path, 'frames', frames, side, 3, about, **dict(test=.25) | more) as out:
        for i in range(clips): out.add(moving(frames, side, i), np.eye(3)[np.arange(frames) % 3], episode=i)
    return str(path)

SHORT = dict(steps=2, codecsteps=2, batch=2)

@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('commands')

@pytest.fixture(scope='module')
def data(place): return dataset(place/'data')

@pytest.fixture(scope='module')
def run(place, data):
    "A world of two steps."
    oniris_train(data=data, out=str(place/'run'), **SHORT)
    return str(place/'run')

# ---- late checks: all before the codec trains, and nothing is left that the corrected command trips over

@pytest.mark.parametrize('says,options', [
    ('expected one of lander_cpu', dict(preset='nosuch')),
    ('train.batch', dict(batch=0)), ('train.steps', dict(steps=0)), ('codec.steps', dict(codecsteps=-1)), ('train.lr', dict(lr=-1.)),
    ('multiple of accumulate', dict(batch=3, accumulate=2)), ('train.cond_dropout', dict(drop=2.)), ('context.self_context', dict(own=-.1)),
    ("'bf16'", dict(precision='bf16')), ('slower', dict(precision='float16')), ('at most the 16', dict(length=17)),
    ('goes on from a world', dict(preset='lander_refine')), ('nowhere', dict(begin='nowhere')), ('nowhere', dict(codec='nowhere')),
    ('nosuch', dict(device='nosuch')), ('never or must', dict(resume='sometimes')), ('holds no run', dict(resume='must'))])
def test_refused(data, tmp_path, says, options):
    refused(says, oniris_train, data=data, out=str(tmp_path/'run'), **SHORT | options)
    assert not (tmp_path/'run').exists()

@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu(data, tmp_path):
    refused('no cuda', oniris_train, data=data, out=str(tmp_path/'run'), device='cuda')
    big = dataset(tmp_path/'big', side=64, frames=8, clips=4)
    refused('expected a GPU', oniris_train, data=big, out=str(tmp_path/'run'), preset='lander_4090')

def test_no_data(tmp_path):
    refused('--data', oniris_train, out=str(tmp_path/'run'))
    refused('nosuch', oniris_train, data='nosuch', out=str(tmp_path/'run'))

def test_out_is_a_file(data, tmp_path):
    (tmp_path/'file').touch()
    refused('is a file', oniris_train, data=data, out=str(tmp_path/'file'), **SHORT)

def test_nothing_held_out(tmp_path):
    refused('holds out', oniris_train, data=dataset(tmp_path/'all', test=[]), out=str(tmp_path/'run'), **SHORT)

def test_short_clips_just_work(tmp_path):
    refused('at most the 8', oniris_train, data=dataset(tmp_path/'data', frames=8), out=str(tmp_path/'run'), length=16, **SHORT)
    oniris_train(data=str(tmp_path/'data'), out=str(tmp_path/'run'), **SHORT)
    assert load_run(tmp_path/'run', 'cpu').manifest['preset']['train']['length'] == 8

@pytest.mark.parametrize('side', [28, 36, 84, 100])
def test_sizes(tmp_path, side):
    "Atari's size and others get a preset that fits; one that was named and does not fit says which size would."
    made = dataset(tmp_path/'data', side=side, frames=4, clips=4)
    refused('the nearest size that works', oniris_train, data=made, out=str(tmp_path/'run'), preset='lander_4090', **SHORT)
    from oniris.recipes.preflight import preflight
    plan = preflight(made, tmp_path/'run', device='cpu')
    x = torch.zeros(1, 2, 4, plan.latents.channels, *plan.latents.size)
    assert plan.world(x, torch.ones(1, 2, 4)).shape == x.shape

def test_no_size(tmp_path): refused('96x96', oniris_train, data=dataset(tmp_path/'data', side=97, frames=4, clips=4), out=str(tmp_path/'run'))

def test_84(tmp_path):
    oniris_train(data=dataset(tmp_path/'data', side=84, frames=4, clips=4), out=str(tmp_path/'run'), steps=1, codecsteps=1, batch=1)
    assert load_run(tmp_path/'run', 'cpu').size == (84, 84)

# ---- a run goes on

def test_longer(run, data):
    oniris_train(data=data, out=run, **SHORT | dict(steps=3))
    assert len(read_log(run)) == 3
    with pytest.raises(SystemExit) as e: oniris_train(data=data, out=run, **SHORT | dict(steps=4, lr=.001))
    assert 'lr was 0.01, is 0.001' in e.value.code and 'batch' not in e.value.code # only what differs
    refused('another codec', oniris_train, data=dataset(Path(run).parent/'large', side=64, frames=16, clips=4), out=run, preset='lander', **SHORT)

def test_no_guidance_without_dropout(data, tmp_path):
    "A network that never missed its actions is not guided away from missing them."
    oniris_train(data=data, out=str(tmp_path/'run'), drop=0., **SHORT)
    assert 'guidance' not in load_run(tmp_path/'run', 'cpu').sampler

# ---- the roads

def test_codec_of_ones_own(data, tmp_path):
    "oniris_train_vae -> oniris_encode -> oniris_train through a codec that compresses time, from latents and from frames."
    vae, latents = str(tmp_path/'vae'), str(tmp_path/'latents')
    oniris_train_vae(data=data, out=vae, steps=2, strides='2x4,2x2', channels='3,64,16')
    oniris_encode(data=data, codec=vae, out=latents)
    oniris_train(data=latents, out=str(tmp_path/'run'), **SHORT)
    assert load_run(tmp_path/'run', 'cpu').time_stride == 4
    oniris_train(data=data, codec=vae, out=str(tmp_path/'other'), **SHORT)
    assert load_run(tmp_path/'other', 'cpu').denoiser.net.config['action_dim'] == 12
    oniris_dream(run=str(tmp_path/'run'), frames=4, out=str(tmp_path/'dream.gif'))
    assert (tmp_path/'dream.gif').stat().st_size

def test_films(tmp_path):
    for i in range(10): save_gif(moving(16, 32, i), tmp_path/'films'/f'{i}.gif', fps=10)
    oniris_train(data=str(tmp_path/'films'), out=str(tmp_path/'run'), size='32', **SHORT)
    made = load_run(tmp_path/'run', 'cpu')
    assert (made.action_dim, made.size) == (0, (32, 32)) and 'guidance' not in made.sampler

# ---- mistakes in the other commands

@pytest.mark.parametrize('options', [dict(env='CartPol-v1'), dict(policy='nosuch'), dict(size=0), dict(options='{"gravity": 3}'), dict(options='[1'),
                                     dict(clips=0), dict(frames=0)])
def test_record(tmp_path, options):
    refused('', oniris_record, **dict(env='CartPole-v1', out=str(tmp_path/'data'), clips=2, frames=4, workers=1) | options)

def test_others(run, data, tmp_path):
    out = str(tmp_path/'out')
    refused('nosuch', oniris_evaluate, run='nosuch')
    refused('nosuch', oniris_evaluate, run=run, data='nosuch')
    refused('nosuch', oniris_train_reward, run='nosuch')
    refused('nosuch', oniris_encode, data='nosuch', codec=f'{run}/codec', out=out)
    refused('nosuch', oniris_encode, data=data, codec='nosuch', out=out)
    refused('nosuch', oniris_train_vae, data='nosuch', out=out)
    refused('strides', oniris_train_vae, data=data, out=out, strides='4')
    refused('nosuch', oniris_dream, run='nosuch')
    refused('', oniris_dream, run=run, frames=0)
    refused('', oniris_play, run=run, port=99999)
    refused('', oniris_import, data='nosuch', out=out)
    refused('choose another --out', oniris_demo, out=_demo(tmp_path), shipped=0, clips=3)

@pytest.mark.parametrize('device', ['nosuch', 'cuda'])
def test_devices_that_are_not_there(run, data, tmp_path, device):
    if device == 'cuda' and torch.cuda.is_available(): pytest.skip('there is a GPU')
    given = dict(device=device)
    for command, options in [(oniris_train_vae, dict(data=data, out=str(tmp_path/'v'))), (oniris_dream, dict(run=run)), (oniris_play, dict(run=run)),
                             (oniris_encode, dict(data=data, codec=f'{run}/codec', out=str(tmp_path/'l'))), (oniris_evaluate, dict(run=run)),
                             (oniris_train_reward, dict(run=run)), (oniris_train, dict(data=data, out=str(tmp_path/'r')))]:
        refused('device: ', command, **options, **given)

def test_a_game_that_cannot_be_played(tmp_path):
    for wrong in (dict(env='CartPol-v1'), dict(keys='a=9'), dict(options='3'), dict(size='0'), dict(skip=-1), dict(port=99999), dict(start=-1)):
        refused('', oniris_play, **dict(env='CartPole-v1') | wrong)

def _demo(folder): # where somebody else's recording lies
    dataset(folder/'demo'/'data')
    return str(folder/'demo')

def test_in_a_shell(tmp_path):
    "Exit status 1 and one line on stderr."
    code = 'from oniris.recipes.train_world import oniris_train; oniris_train()'
    done = subprocess.run([sys.executable, '-c', code, '--data', 'nosuch', '--out', str(tmp_path/'run')], capture_output=True, text=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr

def test_clips_that_latents_hold(run):
    assert Clips(Path(run)/'latents').kind == 'latents'
