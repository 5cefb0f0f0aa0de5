"The loss and its normaliser given what they cannot use, and a fit that is saved and goes on. Run: pytest tests/test_loss.py"
import io, math
import pytest, torch
from torch import nn
from oniris.core import generator
from oniris.diffusion.edm import Denoiser, sample_sigma
from oniris.training.loss import LossNormalizer, TwoCopyLoss, motion_weight

def losses(n, t, *seed): # noise levels and losses (n t) of a fake network
    g = generator(*seed)
    sigma, v = sample_sigma((n, t), .2, 1.2, g), .04 + .96/(1 + torch.arange(t))**2
    return sigma, v*(sigma**2 + 1)/(v + sigma**2)*torch.randn(n, t, 4, generator=g).square().mean(-1)

class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(.3))
    def forward(self, x, c_noise, **kw): return self.a*x

@pytest.fixture
def clean(): return torch.randn(4, 8, 4, 8, 8, generator=generator(9))

def test_no_history_expects_one():
    assert torch.equal(LossNormalizer().expected(torch.rand(2, 3) + .1), torch.ones(2, 3))

def test_a_single_loss_is_a_constant():
    fit = LossNormalizer()
    fit.update(torch.tensor([[2.]]), torch.tensor([[.25]]))
    assert torch.allclose(fit.expected(torch.tensor([[.01, 2., 100.]])), torch.full((1, 3), .25), atol=.05)

def test_infinite_and_negative_losses_are_ignored():
    fit = LossNormalizer()
    fit.update(torch.ones(2, 3), torch.tensor([[math.inf, math.nan, 0.], [-1., math.inf, 0.]]))
    assert torch.equal(fit.expected(torch.ones(2, 3)), torch.ones(2, 3))

def test_one_noise_level_only():
    fit = LossNormalizer()
    fit.update(torch.ones(64, 3), torch.rand(64, 3, generator=generator(6)))
    assert fit.expected(torch.tensor([[1e-3, 1., 1e3]])).isfinite().all()

def test_an_outlier_moves_nothing_far():
    fit, (sigma, l) = LossNormalizer(), losses(256, 8, 7)
    l[0, 0] *= 1000
    fit.update(sigma, l)
    assert fit.expected(sigma).isfinite().all() and fit.expected(sigma).max() < 2

def test_a_ring_smaller_than_a_batch_keeps_the_newest():
    fit, (sigma, l) = LossNormalizer(history=100), losses(256, 8, 7)
    fit.update(sigma, l)
    assert torch.allclose(fit.ring[2], l.log().flatten()[-100:])

@pytest.mark.parametrize('wrong', [dict(order=1), dict(history=0), dict(steps=-1), dict(ridge=0.), dict(ridge=math.nan)])
def test_a_normaliser_refuses_numbers(wrong):
    with pytest.raises(ValueError, match=list(wrong)[0]): LossNormalizer(**wrong)

def test_a_normaliser_refuses_types_and_shapes():
    with pytest.raises(TypeError): LossNormalizer(history=1.5)
    sigma, l = losses(4, 8, 0)
    with pytest.raises(ValueError, match='one loss for each sigma'): LossNormalizer().update(sigma, l[:1])

def test_a_fit_goes_on_through_a_file():
    a, b, file = LossNormalizer(history=300), LossNormalizer(history=300), io.BytesIO()
    for k in range(10): a.update(*losses(4, 8, 8, k))
    torch.save(a.state_dict(), file)
    file.seek(0)
    b.load_state_dict(torch.load(file, weights_only=True))
    for fit in (a, b):
        for k in range(10, 20): fit.update(*losses(4, 8, 8, k))
    sigma, _ = losses(4, 8, 9)
    assert torch.equal(a.coef, b.coef) and torch.equal(a.expected(sigma), b.expected(sigma))
    with pytest.raises(ValueError, match='ring'): LossNormalizer().load_state_dict(a.state_dict())

def test_states_of_another_kind_are_refused():
    with pytest.raises(ValueError, match='without'): TwoCopyLoss(fit=False).load_state_dict(TwoCopyLoss().state_dict())
    with pytest.raises(ValueError, match='with a fit'): TwoCopyLoss().load_state_dict({})

@pytest.mark.parametrize('kind', ['clean', 'past'])
def test_data_that_are_not_finite_make_loss_and_gradient_nan(clean, kind):
    broken, D = clean.clone(), Denoiser(Scale())
    broken[0, 3, 0, 0, 0] = math.inf
    loss, _ = TwoCopyLoss()(D, **(dict(clean=broken) if kind == 'clean' else dict(clean=clean, past=broken)))
    assert loss.isnan() and torch.autograd.grad(loss, D.net.a)[0].isnan()

@pytest.mark.parametrize('wrong', [dict(P_std=-1.), dict(sigma_ctx=1e-3), dict(sigma_min=0.), dict(worst=2.), dict(worst_scale=-1.),
                                   dict(P_mean=math.nan), dict(P_mean=(0., math.inf))])
def test_a_loss_refuses_numbers(wrong):
    with pytest.raises(ValueError, match=list(wrong)[0]): TwoCopyLoss(**wrong)

@pytest.mark.parametrize('given, said', [
    (dict(past=torch.zeros(1, 8, 4, 8, 8)), 'past'), (dict(microbatch=(2, 2)), 'microbatch'), (dict(microbatch=(0, 0)), 'microbatch'),
    (dict(weight=torch.ones(4, 8, 4, 8, 8)), 'weight'), (dict(weight=-torch.ones(4, 8, 1, 8, 8)), '>= 0'),
    (dict(weight=torch.zeros(4, 8, 1, 8, 8)), 'every frame'), (dict(weight=torch.full((4, 8, 1, 8, 8), math.nan)), 'weight')])
def test_a_loss_refuses_inputs(clean, given, said):
    with pytest.raises(ValueError, match=said): TwoCopyLoss()(Denoiser(Scale()), clean, **given)

def test_a_loss_refuses_shapes_and_types(clean):
    loss, D = TwoCopyLoss(), Denoiser(Scale())
    with pytest.raises(ValueError, match='b t c h w'): loss(D, clean[0])
    for call in (lambda: loss(D, clean.long()), lambda: loss(D, clean, past=clean.long()), lambda: TwoCopyLoss(fit=True)):
        with pytest.raises(TypeError): call()

def test_motion_weights_refuse_numbers(clean):
    with pytest.raises(ValueError, match='gain'): motion_weight(clean, gain=-1.)
    with pytest.raises(ValueError, match='radius'): motion_weight(clean, radius=-1)
