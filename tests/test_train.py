"The training loop given poison, other runs and mistakes. Run: pytest tests/test_train.py"
import math, tempfile, warnings
from functools import partial
import pytest, torch
from torch import nn
from oniris.core import generator
from oniris.nn.mp import MPConv, mp_silu, normalize_weights_
from oniris.training.checkpoint import Busy, best_checkpoint, checkpoints, load_checkpoint, read_log
from oniris.training.ema import PowerEMA
from oniris.training.train import NonFinite, Precision, Stop, cosine, guarded_step, train

class Toy(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.a = MPConv(32, 32)
    def forward(self, x): return mp_silu(self.a(x))

teacher = Toy(seed=123).requires_grad_(False)

def toy_loss(model, step, microbatch=(0, 1)):
    g, (i, n) = generator(0, step, 'toy'), microbatch
    x, noise = (torch.randn(64, 32, generator=g).chunk(n)[i] for _ in range(2))
    error = model(x) - teacher(x)
    each = error.detach().square().mean(1)
    return (error - .5*noise).square().mean(), {'error': each.mean(), 'frames': len(x), 'each': each}

def fit(out, steps, model=None, loss_at=None, **kw):
    model = model or Toy()
    kw = dict(lr=partial(cosine, peak=.03, steps=300), after_step=normalize_weights_, bar=False, every=100) | kw
    return model, train(model, loss_at or (lambda k: toy_loss(model, k)), steps, out, **kw)

class Normaliser:
    value = 1.
    def update(self, logs): self.value = .9*self.value + .1*float(logs['each'].mean())
    def state_dict(self): return {'value': self.value}
    def load_state_dict(self, state): self.value = state['value']

def poisoned(bad, where):
    model = Toy()
    def loss_at(k):
        x = toy_loss(model, k)[0]
        if k in bad: x = x*math.nan if where == 'loss' else x + (model.a.weight*0).sqrt().sum() # finite, with an infinite gradient
        return x, {}
    return dict(model=model, loss_at=loss_at)

@pytest.mark.parametrize('where', ['loss', 'gradient'])
def test_what_is_not_finite_is_skipped_and_counted(tmp_path, where):
    model, result = fit(tmp_path, 60, **poisoned({5, 6, 40}, where))
    assert result['skipped'] == 3 and [r['step'] for r in read_log(tmp_path) if r['grad'] is None] == [6, 7, 41]
    assert all(p.isfinite().all() for p in model.parameters())

def test_ten_in_a_row_end_the_run(tmp_path):
    with pytest.raises(NonFinite, match='step-00000100'): fit(tmp_path, 300, **poisoned(set(range(105, 200)), 'loss'))

def test_ruined_weights_are_never_saved(tmp_path):
    model, norm, made = Toy(), Normaliser(), iter(range(1, 10**9))
    def ruin(model): return model.a.weight.data.fill_(math.inf) if next(made) == 30 else normalize_weights_(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        with pytest.raises(NonFinite, match='step-00000020'):
            fit(tmp_path, 100, model, lambda k: toy_loss(model, k), every=10, after_step=ruin, ema=PowerEMA(model), state={'norm': norm})
    assert any('step 30: the weights are not finite and are not saved' in str(x.message) for x in said)
    good, average = Toy(), PowerEMA(Toy())
    assert load_checkpoint(tmp_path, good, {'ema': average, 'norm': norm})['step'] == 20
    assert good.a.weight.isfinite().all() and all(w.isfinite().all() for w in average.weights(0).values()) and math.isfinite(norm.value)

def test_the_scale_of_float16_comes_down():
    model, made = Toy(), []
    opt, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler('cpu', init_scale=4096.)
    for step in range(20):
        with torch.autocast('cpu', torch.float16): loss = toy_loss(model, step)[0]*1e5
        scaler.scale(loss).backward()
        made.append(guarded_step(opt, 1e-2, 1., scaler=scaler)[1])
    assert 0 < made.count(False) < 20 and made[-1]

def test_what_a_cpu_refuses(tmp_path):
    with pytest.raises(ValueError, match='expected a model on a GPU'): fit(tmp_path, 2, compile=True)
    with pytest.raises(ValueError, match='hundreds of times slower'): fit(tmp_path, 2, precision=torch.float16)
    with pytest.raises(ValueError, match='expected torch.float32'): Precision(torch.float64, torch.device('cpu'))

@pytest.mark.parametrize('wrong', [dict(every=0), dict(keep=0), dict(accumulate=0), dict(state={'ema': Normaliser()})])
def test_bad_arguments(tmp_path, wrong):
    with pytest.raises(ValueError): fit(tmp_path, 2, **wrong)

def test_a_directory_belongs_to_one_run(tmp_path):
    mine = {'seed': 0, 'net': {'size': (8, 8), 'width': 32}, 'steps': 10}
    fit(tmp_path, 10, config=mine)
    assert fit(tmp_path, 12, config=mine | {'steps': 12})[1]['step'] == 12
    with pytest.raises(ValueError, match='net.width was 32, is 64'): fit(tmp_path, 20, config=mine | {'net': {'size': (8, 8), 'width': 64}})
    with pytest.raises(ValueError, match='12 steps already'): fit(tmp_path, 5, config=mine)
    with pytest.raises(Busy, match='being written by'): fit(tmp_path, 20, config=mine, watch=lambda *_: fit(tmp_path, 20))

def test_a_run_that_fails_before_its_first_loss_leaves_nothing(tmp_path):
    with pytest.raises(IndexError): fit(tmp_path, 10, config={'size': 9}, loss_at=lambda step: [][step])
    assert checkpoints(tmp_path) == [] and fit(tmp_path, 10, config={'size': 8})[1]['step'] == 10

def test_the_best_checkpoint_stays(tmp_path):
    losses = {10: 3., 20: 1., 30: 2., 40: 2., 50: 2.}
    _, result = fit(tmp_path, 50, every=10, keep=2, validate=lambda k: {'loss': losses[k], 'psnr': 20 + k})
    assert result['best'] == {'step': 20, 'loss': 1.} and best_checkpoint(tmp_path).name == 'step-00000020'
    assert [p.name[-2:] for p in checkpoints(tmp_path)] == ['20', '40', '50']
    assert [r['held_out_psnr'] for r in read_log(tmp_path) if 'held_out_psnr' in r] == [30, 40, 50, 60, 70]

def dropped(folder, seed, steps=3):
    drop, seen, model = nn.Dropout(.5), [], Toy()
    def loss_at(step):
        seen.append(drop(torch.ones(8)).tolist())
        return model.a.weight.sum(), {}
    fit(tempfile.mkdtemp(dir=folder), steps, model, loss_at, seed=seed)
    return seen

def test_dropout_is_a_function_of_seed_and_step(tmp_path):
    first = dropped(tmp_path, 0)
    assert dropped(tmp_path, 0, 4)[:3] == first and first[0] != first[1] and dropped(tmp_path, 1) != first

def test_a_preview_that_fails_is_a_warning(tmp_path):
    def broken(step, model, ema): raise AttributeError('no such panel')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert fit(tmp_path, 5, preview=broken)[1]['step'] == 5
    assert any('no preview: AttributeError' in str(x.message) for x in said)

def test_tensorboard_gets_the_log(tmp_path):
    pytest.importorskip('tensorboard')
    fit(tmp_path, 5, tensorboard=True)
    assert any((tmp_path/'tensorboard').iterdir())

def test_a_budget_of_no_minutes(): assert Stop(minutes=0)
