"Refusals and small properties of the diffusion wing, which would only be in the way in its chapters."
import math
from contextlib import contextmanager
import pytest, torch
from torch import nn
from oniris.core import generator
from oniris.diffusion.ddpm import GaussianDiffusion, cosine_schedule
from oniris.diffusion.edm import Denoiser, precondition, sample_sigma
from oniris.diffusion.sampler import dpmpp_2m, euler, guide, heun, karras_sigmas
from oniris.diffusion.toy import DDPM, GaussianMixture, linear_schedule, moon
from oniris.nn.dit import DiT

nan, data = float('nan'), moon()

def refused(f, said, kind=(ValueError, TypeError)):
    with pytest.raises(kind) as e: f()
    assert said in str(e.value), str(e.value)

# the toy
def test_toy_refusals():
    x0, chain = data.sample(40, generator(0)), DDPM(linear_schedule())
    refused(lambda: GaussianMixture(torch.zeros(3, 2), torch.ones(2)), 'stds: expected shape (k) with k=3')
    refused(lambda: GaussianMixture(torch.zeros(2, 2), torch.ones(2), [-1., 2.]), 'weights')
    refused(lambda: linear_schedule(10, .1, 1.), 'beta_T=1.0')
    refused(lambda: DDPM(torch.tensor([.1, 0.])), 'expected values in (0, 1)')
    refused(lambda: chain.q_sample(x0, 0, x0), '1..1000, got 0')
    refused(lambda: chain.q_sample(x0, torch.ones(3, dtype=torch.long), x0), 'b=40')
    refused(lambda: chain.q_sample(x0, 1, x0[:1]), 'noise: expected the shape of x0')
    refused(lambda: data.denoise(torch.zeros(3), 1.), 'x: expected shape (... d) with d=2')
    refused(lambda: data.denoise(torch.zeros(3, 2), -1.), 'sigma: expected >= 0')

def test_toy_shapes_and_types():
    x0, chain = data.sample(40, generator(0)), DDPM(linear_schedule())
    both = chain.q_sample(x0[:2], torch.tensor([10, 900]), x0[2:4])
    assert torch.allclose(both[1:], chain.q_sample(x0[1:2], 900, x0[3:4]))
    assert chain.q_sample(x0.double(), 5, x0.double()).dtype == data.denoise(x0.double(), torch.tensor(.1)).dtype == torch.float64
    assert torch.allclose(data.denoise(x0, 0.), x0, atol=1e-5)
    assert data.denoise(x0[:6].reshape(2, 3, 2), torch.rand(2, 3)).shape == (2, 3, 2)
    assert data.denoise(x0, 1e3).abs().max() < 1e-2
    u = torch.linspace(-2.6, 2.6, 100)
    xy = torch.stack(torch.meshgrid(u, u, indexing='xy'), -1)
    assert abs(data.log_prob(xy, .3).exp().sum()*(u[1] - u[0])**2 - 1) < 1e-3

# the denoiser
class Stub(nn.Module):
    def __init__(self, channels=3): super().__init__(); self.conv = nn.Conv2d(channels, channels, 3, padding=1)
    def forward(self, x, c_noise, **given):
        self.seen = dict(given, x=x, c_noise=c_noise)
        return self.conv(x.flatten(0, 2)).unflatten(0, x.shape[:3])

class Sums:
    def __init__(self, b): self.b, self.sum, self.open = b, 0., False
    @contextmanager
    def writing(self):
        self.open = True
        try: yield
        finally: self.open = False

class Remembers(nn.Module):
    def new_cache(self, b, window): return Sums(b)
    def forward(self, x, c_noise, actions=None, cache=None):
        if cache is None: return x
        if cache.open: cache.sum = cache.sum + x.sum(2, keepdim=True)
        return x + cache.sum

class Short(nn.Module):
    def forward(self, x, c_noise): return x[:, :, 1:]

def given():
    torch.manual_seed(0)
    return torch.randn(2, 2, 5, 3, 8, 8), sample_sigma((2, 2, 5)), torch.randn(2, 5, 4)

def test_denoiser_refusals():
    D, (x, sigma, actions) = Denoiser(Stub()), given()
    narrow = Stub(); narrow.config = dict(action_dim=4)
    refused(lambda: D(torch.cat([x, x], 1), sigma), 's=(1, 2)')
    refused(lambda: D(x, sigma[:, :1]), 'got (2, 1, 5)')
    refused(lambda: D(x, 0*sigma), 'sigma: expected values > 0, got 0.0')
    refused(lambda: D(x, -sigma), 'sigma: expected values > 0')
    refused(lambda: D(x*nan, sigma), 'x: ')
    refused(lambda: D(x, sigma*nan), 'sigma: ')
    refused(lambda: D(x, sigma, actions*nan), 'actions: ')
    refused(lambda: D(x, sigma, actions[:, 1:]), 'actions: expected shape (b t a) with b=2, t=5')
    refused(lambda: Denoiser(narrow)(x, sigma, actions[..., :3]), 'a=4')
    refused(lambda: D.append(x[:, :1], sigma[:, :1]), 'got None')
    refused(lambda: D.new_cache(2, 8), 'Stub, which has none')
    refused(lambda: Denoiser(Short())(x, sigma), 'net: expected it to return shape')
    refused(lambda: Denoiser(lambda x, c: x), 'expected an nn.Module, got function')
    refused(lambda: Denoiser(Stub(), 0.), 'sigma_data')
    refused(lambda: D(x.long(), sigma), 'expected a floating type')
    refused(lambda: D(x[:0], sigma[:0]), 'no empty axis')
    refused(lambda: D(x, sigma, cond=torch.zeros(3, 4)), 'cond: expected shape (2, ...)')
    refused(lambda: D(x, sigma, cond='lander'), 'cond: expected a tensor')
    refused(lambda: D(x, 1.), '', TypeError)

def test_denoiser_types_devices_and_compilation():
    D, (x, sigma, actions) = Denoiser(Stub()), given()
    D(x, sigma, cond=torch.zeros(2, dtype=torch.long))
    assert list(D.net.seen) == ['cond', 'x', 'c_noise']
    D(x, sigma, torch.eye(4, dtype=torch.long)[torch.arange(10).reshape(2, 5) % 4])
    assert D.net.seen['actions'].dtype == torch.float32
    assert Denoiser(Stub()).to('meta')(x.to('meta'), sigma.to('meta')).shape == x.shape
    assert torch.allclose(torch.compile(D, backend='eager', fullgraph=True)(x, sigma, actions), D(x, sigma, actions), atol=1e-6)
    torch.compiler.reset()

def test_a_refused_frame_leaves_the_cache_as_it_was():
    D, (x, sigma, actions) = Denoiser(Remembers()), given()
    cache, x1, s1 = D.new_cache(2, 8), x[:, :1], sigma[:, :1]
    D.append(x1, s1, actions, cache)
    before = cache.sum
    for f in (lambda: D.append(x1[:1], s1[:1], None, cache), lambda: D.append(x1, -s1, None, cache), lambda: D.append(x, sigma, None, cache),
              lambda: D.append(x1*nan, s1, None, cache)):
        refused(f, ''); assert cache.sum is before and not cache.open
    refused(lambda: D(x1[:1], s1[:1], None, cache), 'cache: expected the batch size of x, 1, got one made for 2')
    refused(lambda: D(x, sigma, None, cache), 'expected one copy')
    refused(lambda: D.append(x1, s1, None, 'cache'), 'expected one with writing(), got str')
    refused(lambda: D.new_cache(2, 0), 'window=0')
    D.append(x1.requires_grad_(), s1, None, cache)
    assert not cache.sum.requires_grad

def test_precondition_types_and_units():
    sigmas = torch.logspace(-3, 2, 41, dtype=torch.float64)
    assert [v.dtype for v in precondition(torch.ones(2).bfloat16())] == [torch.float32]*4
    assert [v.dtype for v in precondition(torch.ones(2).double())] == [torch.float64]*4
    assert torch.allclose(torch.stack(precondition(1.)), torch.tensor([.5, .5**.5, .5**.5, 0.]))
    for a, b, f in zip(precondition(3*sigmas, 1.5), precondition(sigmas, .5), (1, 3, 1/3)): assert torch.allclose(a, f*b)

# samplers
def test_sampler_refusals():
    noise, s = torch.randn(50, 2, generator=generator(0)), karras_sigmas(10)
    refused(lambda: karras_sigmas(0), 'n: expected a whole number >= 1, got 0')
    refused(lambda: karras_sigmas(2.5), '2.5')
    refused(lambda: karras_sigmas(4, 1., 1.), 'sigma_max=1.0')
    refused(lambda: karras_sigmas(4, 0.), 'sigma_min=0.0')
    refused(lambda: karras_sigmas(4, rho=0.), 'rho')
    refused(lambda: euler(data.denoise, noise, torch.tensor([1., 2., 0.])), 'decreasing')
    refused(lambda: euler(data.denoise, noise, torch.tensor([1.])), 'two or more')
    refused(lambda: euler(data.denoise, noise, torch.tensor([[2., 1.]])), 'vector')
    refused(lambda: euler(data.denoise, noise, torch.tensor([1., -1.])), '>= 0')
    refused(lambda: euler(data.denoise, noise*nan, s), 'x: ')
    refused(lambda: euler(data.denoise, noise, [1., 0.]), '', TypeError)
    refused(lambda: heun(data.denoise, noise, s, S_churn=-1.), 'S_churn')
    refused(lambda: guide('cond', 'base', math.nan), 'scale')

def test_schedule_types():
    assert karras_sigmas(4, dtype=torch.float64).dtype == torch.float64 and karras_sigmas(500).diff().max() < 0

class Counted:
    def __init__(self): self.n, self.sigmas = 0, []
    def __call__(self, x, sigma): self.n += 1; self.sigmas.append(sigma); return data.denoise(x, sigma)

@pytest.mark.parametrize('f,n', [(euler, 10), (heun, 19), (dpmpp_2m, 10)])
def test_samplers_share_a_contract(f, n):
    c, trace, s, noise = Counted(), [], karras_sigmas(10), torch.randn(5, 2, generator=generator(0))
    x = f(c, s[0]*noise, s, trace=trace)
    assert (c.n, len(trace), x.dtype, c.sigmas[0].ndim) == (n, 10, torch.float32, 0) and c.sigmas[0] == s[0]
    assert torch.equal(f(data.denoise, s[0]*noise, s, generator(3)), x)            # without churn the generator has no say
    assert torch.allclose(f(data.denoise, s[0]*noise, s[[0, -1]]), data.denoise(s[0]*noise, s[0]), atol=1e-5)
    assert f(lambda x, sigma: .5*x, torch.ones(1, 1, 2, 4, 3, 3), s).shape == (1, 1, 2, 4, 3, 3)
    assert not f(data.denoise, torch.ones(2, 2, requires_grad=True), s).requires_grad

def test_churn_and_guidance():
    s, noise = karras_sigmas(10), torch.randn(5, 2, generator=generator(0))
    churned = lambda seed: heun(data.denoise, s[0]*noise, s, generator(seed), S_churn=20.)
    assert torch.equal(churned(1), churned(1)) and not torch.equal(churned(1), churned(2))
    assert torch.equal(heun(data.denoise, s[0]*noise, s, generator(1), S_churn=20., S_max=1e-4), heun(data.denoise, s[0]*noise, s))
    upper = GaussianMixture(data.means[:5], data.stds[:5], data.weights[:5])
    assert (guide('cond', 'base', 1), guide('cond', 'base', 0.)) == ('cond', 'base')
    assert torch.allclose(guide(upper.denoise, data.denoise, 3.)(noise, 1.), 3*upper.denoise(noise, 1.) - 2*data.denoise(noise, 1.), atol=1e-5)

# DDPM
class Same(nn.Module):
    def forward(self, x, t, cond=None, null_cond_prob=0.): return x

def test_gaussian_diffusion_refusals():
    model, x, labels = GaussianDiffusion(Same(), image_size=8, channels=1), torch.zeros(2, 1, 8, 8), torch.arange(3)
    refused(lambda: model(x[:, :, :7]), 'expected shape (b, 1, 8, 8), got (2, 1, 7, 8)')
    refused(lambda: model(x + 100), 'are these bytes')
    refused(lambda: model(x.long()), 'floats')
    refused(lambda: model(x, cond=['three', 'four']), 'text_encoder')
    refused(lambda: model(x, cond=labels), 'one for each of 2')
    refused(lambda: GaussianDiffusion(Same(), 8, loss_type='huber'), "'l1' or 'l2'")
    refused(lambda: model.sample(steps=2000), 'from 1 to 1000')

def test_gaussian_diffusion_encodes_strings():
    model = GaussianDiffusion(Same(), image_size=8, channels=1, text_encoder=lambda s: torch.tensor([float(len(x)) for x in s]))
    assert model._cond(['ab', 'c'], 2).tolist() == [2., 1.]

def test_the_bound_reaches_the_variance_alone():
    "Of `hybrid_loss` the mean gets L_simple's gradient, bit for bit, whatever the bound weighs; a DiT of twice the channels trains with it."
    chain, g = DDPM(cosine_schedule(20)), generator(0)
    x0, noise, noise_hat, v = (torch.randn(6, 1, 4, 4, generator=g) for _ in range(4))
    noise_hat.requires_grad_(); v.requires_grad_()
    t = torch.tensor([1, 2, 7, 13, 19, 20])
    for lam in 0., 1e-3, 100.:
        of_mean, of_variance = torch.autograd.grad(chain.hybrid_loss(noise_hat, v, x0, t, noise, lam)[0], (noise_hat, v))
        simple = torch.autograd.grad((noise - noise_hat).square().flatten(1).mean(1).mean(), noise_hat)[0]
        assert torch.equal(of_mean, simple) and (of_variance.abs().max() > 0) == (lam > 0)
    net = DiT(4, 1, out_channels=2, width=16, depth=1, heads=2)
    for p in net.parameters():
        if p.abs().max() == 0: nn.init.normal_(p, std=.2)
    hat, v = net(x0[:, None, None], torch.zeros(6, 1, 1))[:, 0, 0].chunk(2, 1)
    loss, logs = chain.hybrid_loss(hat, (v + 1)/2, x0, t, noise)
    loss.backward()
    assert logs['vlb'].isfinite().all() and all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

class Knows(nn.Module):
    "Predicts the very noise that separates x_t from data it knows."
    def __init__(self, x0): super().__init__(); self.x0, self.chain = x0, DDPM(cosine_schedule(50))
    def forward(self, x, t, cond=None, null_cond_prob=0.):
        abar = self.chain.at(self.chain.abar, t + 1, x)
        return (x - abar.sqrt()*self.x0)/(1 - abar).sqrt()

@pytest.mark.parametrize('sampler', [euler, heun, dpmpp_2m])
def test_any_sampler_draws_from_a_chain(sampler):
    x0, s = torch.rand(3, 1, 4, 4, generator=generator(0))*2 - 1, karras_sigmas(6, .05, 20.)
    model = GaussianDiffusion(Knows(x0), image_size=4, channels=1, timesteps=50)
    noise = torch.randn(x0.shape, generator=generator(1))
    for sigma in .03, 1., 35.: assert (model.denoise(x0 + sigma*noise, sigma) - x0).abs().max() < 1e-3
    assert (sampler(model.denoise, s[0]*noise, s) - x0).abs().max() < 1e-3
    refused(lambda: model.denoise(x0, 0.), 'sigma: expected > 0')
    refused(lambda: model.denoise(x0, 1., cond=['a']*3), 'text_encoder')
