"""Every network of the course keeps one contract: two copies = one copy = cached, causality, one frame = an image, bake, blocks, windows, sinks."""
import pytest, torch
from torch import nn
from oniris.core import generator
from oniris.diffusion.edm import Denoiser
from oniris.dream.dreamer import Dreamer
from oniris.nn.dit import DiT
from oniris.nn.mp import bake
from oniris.nn.unet import UNet

NETS = dict(unet=lambda **kw: UNet(**dict(model_channels=8, channel_mult=(1, 2), video_attn=(2,), head_dim=8, kernel_t=3) | kw),
            dit_full=lambda **kw: DiT(**dict(width=16, depth=2, heads=2) | kw),
            dit_factored=lambda **kw: DiT(**dict(width=16, depth=2, heads=2, attention='factored') | kw))

def world(name, gate=False, **net):
    torch.manual_seed(0)
    size = dict(resolution=(4, 6), channels=3, action_dim=2, cond_dim=2, out_channels=3 + gate)
    D = Denoiser(NETS[name](**size | net), sigma_d=.8 if gate else None)
    for p in D.parameters(): # at initialisation gates and outputs are shut, and nothing would be tested
        if p.ndim == 0: nn.init.constant_(p, .7)
        elif p.abs().max() == 0: nn.init.normal_(p, std=.2)
    return D.double().eval()

def sequence(t, b=2, seed=0):
    g = generator(seed)
    clean, noise = (torch.randn(b, t, 3, 4, 6, generator=g, dtype=torch.float64) for _ in range(2))
    sigma = torch.randn(b, t, generator=g, dtype=torch.float64).exp()
    given = torch.randn(b, t, 2, generator=g, dtype=torch.float64), torch.randn(b, 2, generator=g, dtype=torch.float64)
    return clean, clean + sigma[..., None, None, None] * noise, sigma, *given

every = pytest.mark.parametrize('name', NETS)

@every
@pytest.mark.parametrize('gate', [False, True])
@pytest.mark.parametrize('t, net', [(5, {}), (6, dict(block=2)), (6, dict(window=2)), (1, {})])
@torch.no_grad()
def test_two_copies_one_copy_cached(name, gate, t, net):
    D, block = world(name, gate, **net), net.get('block', 1)
    clean, noised, sigma, actions, cond = sequence(t)
    least = torch.full_like(sigma, .01)
    two = D(torch.stack([clean, noised], 1), torch.stack([least, sigma], 1), actions, cond=cond)[:, 1]
    cache, scale = D.new_cache(2, t), two.abs().max()
    for i in range(0, t, block):
        now = slice(i, i + block)
        cached = D(noised[:, None, now], sigma[:, None, now], actions[:, now], cache, cond)[:, 0]
        assert (cached - two[:, now]).abs().max() < 2e-10 * scale
        if net.get('kernel_t', 1) == 1 or block == 1: # with blocks the convolution of a frame's own copy sees the block before it alone
            x, s = torch.cat([clean[:, :i], noised[:, now]], 1)[:, None], torch.cat([least[:, :i], sigma[:, now]], 1)[:, None]
            assert (D(x, s, actions[:, :i + block], cond=cond)[:, 0, now] - two[:, now]).abs().max() < 2e-10 * scale
        D.append(clean[:, None, now], least[:, None, now], actions[:, now], cache, cond)

@every
@torch.no_grad()
def test_single_precision(name):
    D = world(name).float()
    clean, noised, sigma, actions, cond = (v.float() for v in sequence(5))
    least = torch.full_like(sigma, .01)
    two, cache = D(torch.stack([clean, noised], 1), torch.stack([least, sigma], 1), actions, cond=cond)[:, 1], D.new_cache(2, 5)
    for i in range(5):
        now = slice(i, i + 1)
        assert (D(noised[:, None, now], sigma[:, None, now], actions[:, now], cache, cond)[:, 0] - two[:, now]).abs().max() < 2e-5 * two.abs().max()
        D.append(clean[:, None, now], least[:, None, now], actions[:, now], cache, cond)

@every
@torch.no_grad()
def test_causality(name):
    D = world(name)
    clean, noised, sigma, actions, cond = sequence(5)
    def run(clean, noised): return D(torch.stack([clean, noised], 1), torch.stack([0 * sigma + .01, sigma], 1), actions, cond=cond)
    base = run(clean, noised)
    for j in range(5):
        a, b = clean.clone(), noised.clone(); a[:, j] += 1; b[:, j] += 1
        out = run(a, noised)
        assert torch.equal(out[:, 1, :j + 1], base[:, 1, :j + 1]) and torch.equal(out[:, 0, :j], base[:, 0, :j])
        assert all(not torch.equal(out[:, 1, k], base[:, 1, k]) for k in range(j + 1, 5))
        out = run(clean, b)
        others = [k for k in range(5) if k != j]
        assert torch.equal(out[:, 0], base[:, 0]) and torch.equal(out[:, 1, others], base[:, 1, others])

@every
@torch.no_grad()
def test_one_frame_is_an_image_and_baking_changes_nothing(name):
    D = world(name)
    _, noised, sigma, _, cond = sequence(3)
    alone = torch.cat([D(noised[:, None, i:i + 1], sigma[:, None, i:i + 1], cond=cond) for i in range(3)], 2)
    folded = D(noised.flatten(0, 1)[:, None, None], sigma.reshape(-1, 1, 1), cond=cond.repeat_interleave(3, 0)).view_as(alone)
    assert (alone - folded).abs().max() < 1e-12
    assert (bake(D)(noised[:, None], sigma[:, None], cond=cond) - D(noised[:, None], sigma[:, None], cond=cond)).abs().max() < 1e-12

@every
@torch.no_grad()
def test_dreams_with_sinks_branch_and_reset(name):
    D = world(name, gate=True, cond_dim=0, window=3)
    clean, _, _, actions, _ = sequence(14)
    d = Dreamer(D, window=3, sinks=1, steps=2, seed=3).reset(clean[:, :4], actions[:, :4])
    d.rollout(actions[:, 4:8])
    other, state = d.branch(), d.state_dict()
    rest = d.rollout(actions[:, 8:])
    assert torch.equal(other.rollout(actions[:, 8:]), rest)
    again = Dreamer(D, window=3, sinks=1, steps=2, seed=3).load_state_dict(state)
    again.reset_some([1], clean[1:, :5], actions[1:, :5])
    assert torch.equal(again.rollout(actions[:, 8:])[0], rest[0])

@every
def test_saved_loaded_and_refused(name, tmp_path):
    D = world(name)
    D.save_pretrained(tmp_path)
    clean, noised, sigma, actions, cond = sequence(3)
    with torch.no_grad(): assert torch.equal(Denoiser.from_pretrained(tmp_path)(noised[:, None], sigma[:, None], actions, cond=cond), D(noised[:, None], sigma[:, None], actions, cond=cond))
    with pytest.raises(ValueError, match='x: expected shape'): D(noised[:, None, :, :, :3], sigma[:, None])
    with pytest.raises(ValueError, match='actions'): D(noised[:, None], sigma[:, None], actions[..., :1])
    with pytest.raises(ValueError, match='multiple'): NETS[name](resolution=(5, 6), channels=3)

def test_dit_begins_as_the_identity():
    net = DiT(4, 3, width=16, depth=3, heads=2)
    x = torch.randn(1, 2, 3, 4, 4, 16)
    with torch.no_grad():
        tokens, emb = torch.randn(1, 2, 3, 4, 16), torch.randn(1, 2, 3, 16)
        for layers in net.blocks:
            for layer in layers: assert torch.equal(layer(tokens, emb), tokens)
        assert not net(torch.randn(1, 2, 3, 3, 4, 4), torch.zeros(1, 2, 3)).any()
    for bad in dict(attention='half'), dict(positions='none'), dict(heads=3), dict(depth=0):
        with pytest.raises(ValueError): DiT(4, 3, width=16, **bad)

@every
def test_a_compiler_keeps_the_gradients(name):
    "torch 2.11 compiled an autograd function of ours into one without gradients, and training went on without a word"
    D = world(name, gate=True).requires_grad_(True)
    clean, noised, sigma, actions, cond = sequence(3)
    def gradients():
        D.zero_grad()
        y = D(torch.stack([clean, noised], 1), torch.stack([torch.full_like(sigma, .01), sigma], 1), actions, cond=cond, clean=clean)
        y.square().mean().backward()
        return {k: p.grad.clone() for k, p in D.named_parameters() if p.grad is not None}
    plain = gradients()
    D.net.compile(backend='aot_eager', dynamic=False)
    traced = gradients()
    torch._dynamo.reset()
    assert plain.keys() == traced.keys() and all(v.abs().max() > 0 for v in traced.values())
    for k, v in plain.items(): assert (traced[k] - v).abs().max() < 1e-9 * v.abs().max().clamp(min=1e-3), k
