"Dreams given what they cannot use, interrupted, saved and damaged. Run: pytest tests/test_dreamer.py"
import copy, math
import pytest, torch
from gymnasium.spaces import Discrete
from oniris.codec.vae import VAE
from oniris.core import generator
from oniris.diffusion.edm import Denoiser
from oniris.diffusion.sampler import heun
from oniris.dream.dreamer import Dreamer
from oniris.nn.unet import UNet

SETTINGS = dict(sigma_ctx=.1, sigma_min=.03, sigma_max=20.)

def tiny(**kw): # the same weights whatever the window
    torch.manual_seed(0)
    net = UNet(**dict(resolution=8, channels=2, action_dim=3, model_channels=8, channel_mult=(1, 2), video_attn=(4,)) | kw)
    for name, p in net.named_parameters():
        if name.endswith(('bias', 'slope')): torch.nn.init.normal_(p)
    return Denoiser(net).double().eval()

def gap(a, b): return ((a - b).abs().max()/b.abs().max()).item()

gen = generator(0, stream='tests')
z = torch.randn(3, 3, 2, 8, 8, generator=gen, dtype=torch.float64)
actions = torch.randn(3, 15, 3, generator=gen, dtype=torch.float64)
keys = torch.eye(3, dtype=torch.float64)[torch.randint(3, (3, 11), generator=gen)]
video = torch.rand(2, 6, 3, 16, 16, generator=gen, dtype=torch.float64)*2 - 1
moves = torch.randn(2, 14, 2, generator=gen, dtype=torch.float64)

@pytest.fixture
def keyed(): return Dreamer(tiny(), window=16, action_space=Discrete(3), **SETTINGS)

@pytest.fixture
def pieces(): # two frames a latent, and a decoder with a memory
    torch.manual_seed(0)
    codec = VAE(channels=(3, 8, 2), time_strides=(1, 2), space_strides=(2, 1), latents='gaussian').double().eval()
    return Dreamer(tiny(action_dim=4), codec, window=4, **SETTINGS).reset(video, moves[:, :6])

def test_before_reset(keyed):
    for f in (lambda: keyed.step(keys[:, 0]), lambda: keyed.rollout(keys), lambda: keyed.branch().reset_some([0], z), keyed.state_dict):
        with pytest.raises(RuntimeError, match='before reset'): f()

def test_bad_input_leaves_the_dream_as_it_was(keyed):
    expected = keyed.reset(z, keys[:, :3]).rollout(keys[:, 3:])
    keyed.reset(z, keys[:, :3])
    for bad in keys[:, 3, :2], keys[:2, 3], keys[:, 3]/0, keys[:, 3] + .5, 2*keys[:, 3], keys[:, 3:5], None:
        with pytest.raises(ValueError): keyed.step(bad)
    for frames in z[:, :, :1], z[..., :4], z/0, z[:, :0]:
        with pytest.raises(ValueError): keyed.reset(frames, keys[:, :3])
    for f in (lambda: keyed.reset(z, keys[:, :2]), lambda: keyed.reset(z, keys[:, :3], cond=z), lambda: keyed.rollout(keys[:, 3:]/0), lambda: keyed.rollout(),
              lambda: keyed.reset_some([3], z[:1], keys[:1, :3]), lambda: keyed.reset_some([0, 1], z[:1], keys[:1, :3]),
              lambda: keyed.reset_some([0], z[:1]/0, keys[:1, :3])):
        with pytest.raises(ValueError): f()
    with pytest.raises(TypeError): keyed.reset(z.byte(), keys[:, :3])
    with pytest.raises(TypeError): keyed.step([0, 1, 0])
    assert torch.equal(keyed.rollout(keys[:, 3:]), expected)

def test_two_frames_a_latent_refuses(pieces):
    for f in (lambda: pieces.reset(video[:, :5], torch.zeros(2, 5, 2)), lambda: pieces.step(torch.zeros(2, 2)), lambda: pieces.rollout(torch.zeros(2, 3, 2)),
              lambda: pieces.reset(video[..., :8], torch.zeros(2, 6, 2))):
        with pytest.raises(ValueError): f()

@pytest.mark.parametrize('wrong', [dict(steps=4, sampler=heun), dict(sampler='rk4'), dict(window=0), dict(sinks=-1), dict(guidance=math.nan),
                                   dict(guidance_base='all'), dict(sigma_ctx=0), dict(steps=0)])
def test_settings(wrong):
    with pytest.raises(ValueError, match=list(wrong)[0]): Dreamer(tiny(), **wrong)

def test_an_interruption_while_the_cache_is_written(keyed):
    class Interrupted(Denoiser):
        def append(self, *args, **kw): raise KeyboardInterrupt
    expected, D = keyed.reset(z, keys[:, :3]).rollout(keys[:, 3:]), keyed.denoiser
    keyed.reset(z, keys[:, :3])
    keyed.denoiser = copy.copy(D)
    keyed.denoiser.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt): keyed.step(keys[:, 3])
    with pytest.raises(RuntimeError, match='interruption'): keyed.step(keys[:, 3])
    keyed.denoiser = D
    assert torch.equal(keyed.reset(z, keys[:, :3]).rollout(keys[:, 3:]), expected)

def test_a_saved_dream_and_others(tmp_path):
    D = tiny()
    dreamer = Dreamer(D, window=16, **SETTINGS).reset(z, actions[:, :3])
    file, rest = dreamer.save(tmp_path/'dream.safetensors'), dreamer.branch().rollout(actions[:, 3:6])
    assert torch.equal(Dreamer(D, window=16, **SETTINGS).load(file).rollout(actions[:, 3:6]), rest)
    other = tiny()
    next(other.parameters()).data.mul_(1.01)
    another = Dreamer(other, window=16, **SETTINGS).reset(z, actions[:, :3])
    with pytest.raises(ValueError, match='its model is'): another.load(file)
    another.step(actions[:, 3]) # and continues with its own dream
    with pytest.raises(ValueError, match='its window is 16, expected 8'): Dreamer(D, window=8, **SETTINGS).load(file)
    with pytest.raises(FileNotFoundError): another.load(tmp_path/'nothing')
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match='damaged'): Dreamer(D, window=16, **SETTINGS).load(file)

def test_a_decoders_memory_is_branched_and_saved(pieces):
    twin = pieces.branch()
    taken = Dreamer(pieces.denoiser, pieces.codec, window=4, **SETTINGS).load_state_dict(pieces.state_dict())
    later = [d.rollout(moves[:, 6:10]) for d in (pieces, twin, taken)]
    assert torch.equal(later[0], later[1]) and torch.equal(later[0], later[2])

def test_a_decoders_memory_is_reset_in_part(pieces):
    both = Dreamer(pieces.denoiser, pieces.codec, window=4, **SETTINGS).reset(video, torch.zeros(2, 6, 2))
    one = Dreamer(pieces.denoiser, pieces.codec, window=4, seed=[5], **SETTINGS).reset(video[:1, 2:], torch.zeros(1, 4, 2))
    both.rollout(moves[:, 6:10])
    both.reset_some([1], video[:1, 2:], torch.zeros(1, 4, 2), seed=[5])
    assert gap(both.rollout(moves[:, 6:10])[1:], one.rollout(moves[1:, 6:10])) < 1e-9

def test_a_condition_changes_its_sequence_only():
    classes, e = tiny(cond_dim=5), torch.eye(5, dtype=torch.float64)
    def dream(c, **kw): return Dreamer(classes, window=4, **SETTINGS, **kw).reset(z, actions[:, :3], cond=e[c]).rollout(actions[:, 3:6])
    first, other, guided = dream([0, 1, 2]), dream([0, 1, 3]), dream([0, 1, 2], guidance=2., guidance_base='cond')
    assert [gap(other[i], first[i]) > 1e-3 for i in range(3)] == [False, False, True] and gap(guided, first) > 1e-3
