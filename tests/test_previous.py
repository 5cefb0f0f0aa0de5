"""A denoiser with the frame before as a second observation keeps the contracts of one without: two copies = one copy = cached, causality, image mode, dream states."""
import itertools, pytest, torch
from oniris.core import generator
from oniris.diffusion.edm import Denoiser
from oniris.dream.dreamer import Dreamer
from oniris.nn.unet import UNet
from oniris.training.loss import TwoCopyLoss

def world(block=1, seed=0, **net):
    torch.manual_seed(seed)
    net = dict(resolution=(4, 6), channels=3, action_dim=2, model_channels=8, channel_mult=(1, 2), video_attn=(2,), head_dim=8, kernel_t=1 if block > 1 else 3) | net
    D = Denoiser(UNet(**net, block=block, out_channels=net['channels'] + 1), sigma_d=.8).double()
    for p in D.parameters():
        if p.ndim == 0: torch.nn.init.constant_(p, .7) # gains of gates and of the output: at zero nothing would be tested
    return D.eval()

def sequence(t, b=2, seed=0, size=(4, 6)):
    g = generator(seed)
    clean, noise = (torch.randn(b, t, 3, *size, generator=g, dtype=torch.float64) for _ in range(2))
    sigma = torch.randn(b, t, generator=g, dtype=torch.float64).exp()
    return clean, clean + sigma[..., None, None, None] * noise, sigma, torch.randn(b, t, 2, generator=g, dtype=torch.float64)

@pytest.mark.parametrize('t, block, kernel_t', [(1, 1, 3), (5, 1, 3), (4, 2, 1), (6, 3, 1), (5, 1, 1)])
def test_two_copies_one_copy_cached(t, block, kernel_t):
    D = world(block, kernel_t=kernel_t)
    clean, noised, sigma, actions = sequence(t)
    least = torch.full_like(sigma, .01)
    with torch.no_grad():
        two = D(torch.stack([clean, noised], 1), torch.stack([least, sigma], 1), actions)[:, 1]
        cache, scale = D.new_cache(2, t), two.abs().max()
        for i in range(0, t, block):
            now = slice(i, i + block)
            x, s = torch.cat([clean[:, :i], noised[:, now]], 1)[:, None], torch.cat([least[:, :i], sigma[:, now]], 1)[:, None]
            one = D(x, s, actions[:, :i + block])[:, 0, now]
            before = {k: v.clone() for k, v in cache.tensors().items() if k.startswith('previous')}
            cached = D(noised[:, None, now], sigma[:, None, now], actions[:, now], cache)[:, 0]
            assert len(before) == 2 and all(torch.equal(cache.tensors()[k], v) for k, v in before.items()), 'a call only reads'
            assert (one - two[:, now]).abs().max() < 2e-10 * scale and (cached - two[:, now]).abs().max() < 2e-10 * scale
            D.append(clean[:, None, now], least[:, None, now], actions[:, now], cache)

def test_the_past_matters_and_the_future_does_not():
    D = world()
    clean, noised, sigma, actions = sequence(5)
    def run(clean): return D(torch.stack([clean, noised], 1), torch.stack([0 * sigma + .01, sigma], 1), actions)[:, 1]
    with torch.no_grad():
        base = run(clean)
        for j in range(5):
            other = clean.clone(); other[:, j] += 1
            out = run(other)
            assert torch.equal(out[:, :j + 1], base[:, :j + 1]) and (j == 4 or not torch.equal(out[:, j + 1], base[:, j + 1]))

def test_a_one_frame_video_is_an_image():
    D = world()
    _, noised, sigma, _ = sequence(4)
    with torch.no_grad():
        video = torch.cat([D(noised[:, None, i:i + 1], sigma[:, None, i:i + 1]) for i in range(4)], 2)
        images = D(noised.flatten(0, 1)[:, None, None], sigma.reshape(-1, 1, 1)).view_as(video)
    assert (video - images).abs().max() < 1e-12
    F_x = D._network(noised[:, None, :1], sigma[:, None, :1], {})
    edm = (noised[:, :1] / (1 + sigma[:, :1, None, None, None]**2))[:, None] + (sigma / (1 + sigma**2).sqrt())[:, None, :1, None, None, None] * F_x[:, :, :, :3]
    assert (video[:, :, :1] - edm).abs().max() < 1e-12

def test_the_frame_before_is_taken_without_its_noise():
    D = world()
    clean, noised, sigma, actions = sequence(3)
    x, s = torch.stack([clean + .3 * torch.randn_like(clean), noised], 1), torch.stack([0 * sigma + .3, sigma], 1)
    with torch.no_grad(): assert not torch.allclose(D(x, s, actions), D(x, s, actions, clean=clean))
    seen = {}
    class Spy(Denoiser):
        def forward(self, x, sigma, **given): seen.update(given); return super().forward(x, sigma, **given)
    spy = Spy(D.net, sigma_d=.8)
    loss, _ = TwoCopyLoss()(spy, clean, actions)
    assert torch.equal(seen['clean'], clean) and loss.isfinite()
    with pytest.raises(ValueError, match='clean: expected shape'): D(x, s, actions, clean=clean[:, 1:])

def test_loss_starts_near_one():
    D = world().float()
    for p in D.parameters():
        if p.ndim == 0: torch.nn.init.zeros_(p)
    g = generator(3)
    walk = torch.randn(64, 1, 3, 4, 6, generator=g)
    a, v = 1 - .8**2 / 2, 1 - (1 - .8**2 / 2)**2
    frames = [walk]
    for _ in range(7): frames.append(a * frames[-1] + v**.5 * torch.randn(walk.shape, generator=g))
    clean = torch.cat(frames, 1)
    _, logs = TwoCopyLoss(P_mean=1., P_std=1., fit=False)(D, clean, torch.zeros(64, 8, 2), generator=generator(0))
    assert .6 < logs['loss'] < 1.3 # between a gate of .73 and an open one; EDM's weights with these coefficients would say .4

@pytest.mark.parametrize('block', [1, 2])
def test_dreams_branch_reset_and_are_saved(block):
    D = world(block)
    clean, _, _, actions = sequence(12)
    def dreamer(): return Dreamer(D, window=4, steps=2, seed=3)
    whole = dreamer().reset(clean[:, :4], actions[:, :4]).rollout(actions[:, 4:])
    d = dreamer().reset(clean[:, :4], actions[:, :4])
    first = d.rollout(actions[:, 4:8])
    branch, state = d.branch(), d.state_dict()
    rest = d.rollout(actions[:, 8:])
    assert torch.equal(torch.cat([first, rest], 1), whole)
    assert torch.equal(branch.rollout(actions[:, 8:]), rest)
    assert torch.equal(dreamer().load_state_dict(state).rollout(actions[:, 8:]), rest)
    d = dreamer().reset(clean[:, :4], actions[:, :4]); d.rollout(actions[:, 4:8])
    d.reset_some([1], clean[1:, 4:8], actions[1:, 4:8])
    mixed, alone = d.rollout(actions[:, 8:]), dreamer().reset(clean[1:, 4:8], actions[1:, 4:8], seed=[d.seeds[1]])
    assert torch.equal(mixed[0], rest[0]) and (mixed[1] - alone.rollout(actions[1:, 8:])[0]).abs().max() < 1e-9

def test_saved_and_loaded(tmp_path):
    D = world()
    D.save_pretrained(tmp_path)
    again = Denoiser.from_pretrained(tmp_path)
    clean, noised, sigma, actions = sequence(3)
    with torch.no_grad(): assert again.sigma_d == .8 and torch.equal(D(noised[:, None], sigma[:, None], actions), again(noised[:, None], sigma[:, None], actions))
    for bad in 0., 2., -1.:
        with pytest.raises(ValueError, match='sigma_d: expected more than 0 and less than'): Denoiser(D.net, sigma_d=bad)
