"""A sentence in, a film out, by commands: GIFs and their captions -> import -> train -> dream, from a real start and from nothing."""
import json
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from oniris.codec.codec import Codec
from oniris.codec.vae import VAE
from oniris.data.clips import Clips
from oniris.data.sources import oniris_import
from oniris.diffusion.edm import Denoiser
from oniris.dream.dreamer import Dreamer
from oniris.dream.first import first_frames
from oniris.dream.imagine import LatentDreamer
from oniris.dream.rollout import oniris_dream
from oniris.frames import save_gif
from oniris.games.digits import bouncing_digits, score_captions, train_reader
from oniris.nn.dit import DiT
from oniris.nn.unet import UNet
from oniris.recipes.train_world import oniris_train

def frames_in(gif): return np.stack([np.asarray(f.convert('L')) for f in _frames(Image.open(gif))])
def _frames(image):
    for i in range(image.n_frames): image.seek(i); yield image

@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "Twelve GIFs of the right size, and what is said of them."
    folder, clips = tmp_path_factory.mktemp('films'), bouncing_digits(12, 8, 16, 1, 8, seed=1, straight=8, speed=(.6, 1.))
    for i, video in enumerate(clips.frames): save_gif(video[..., None], folder/f'{i:03}.gif', fps=10)
    (folder.parent/'said.jsonl').write_text('\n'.join(json.dumps(dict(file=f'{i:03}.gif', caption=c)) for i, c in enumerate(clips.captions)))
    return folder

def test_commands(films, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    oniris_import(data=str(films), out='data', captions=str(films.parent/'said.jsonl'), embed='words', fps=10., quiet=True)
    clips = Clips('data')
    assert (len(clips), clips.frames, clips.size, clips.cond_dim) == (12, 8, (16, 16), 128) and ' moves ' in clips[0]['caption']
    oniris_train(data='data', out='run', preset='digits_cpu', steps=4, codecsteps=4, batch=4, accumulate=2, precision='bfloat16', preview=2, every=2)
    assert {'dream.gif', 'dashboard.png', 'step-00000002', 'step-00000004'} <= {p.name for p in Path('run').iterdir()}
    assert set(json.loads(Path('run/run.json').read_text())['held_out_loss']) == {'0.05', '0.1'} # the averages
    told = dict(run='run', frames=7, scale=1, text='a three moves up')
    oniris_dream(**told, out='real.gif')
    oniris_dream(**told, out='none.gif', start='none', guidance=2.)
    shown = frames_in('none.gif')
    assert shown.shape == (8, 16, 16) and len(frames_in('real.gif')) == 7          # the first frame was drawn too
    marks = score_captions(train_reader(2, 16, 8, digits=1), shown[None], [told['text']])
    assert all(0 <= v <= 1 for v in marks.values())
    for wrong, says in ((dict(captions='nowhere.jsonl'), 'no such file of captions'), (dict(captions=str(films.parent/'said.jsonl'), text='x'), 'one source of captions')):
        with pytest.raises(SystemExit, match=says): oniris_import(data=str(films), out='other', embed='words', fps=10., quiet=True, **wrong)
    with pytest.raises(SystemExit, match='trained without captions'): oniris_dream(run='lander', frames=1, out='no.gif', text='a three moves up')

NETS = dict(unet=lambda **kw: UNet(8, 2, model_channels=8, channel_mult=(1, 2), video_attn=(4,), **kw),
            dit=lambda **kw: DiT(8, 2, width=16, depth=1, heads=2, **kw), blocks=lambda **kw: UNet(8, 2, model_channels=8, channel_mult=(1, 2), block=2, **kw))

def dreamer(name='unet', codec=None, kind=Dreamer, **settings):
    torch.manual_seed(0)
    world = Denoiser(NETS[name](action_dim=3, cond_dim=4))
    for p in world.parameters():
        if p.abs().max() == 0: torch.nn.init.normal_(p, std=.2)
    return kind(world, codec, **dict(steps=2) | settings)

@pytest.mark.parametrize('name', NETS)
def test_begins_with_what_the_image_model_draws(name):
    d, cond = dreamer(name), torch.eye(4)[:3]
    d.reset(cond=cond)
    k = d.stride
    assert (d.b, d.frame, d.past.shape) == (3, k, (3, k, 2, 8, 8)) and d.past.isfinite().all()
    given = first_frames(dreamer(name), cond=cond)
    assert torch.equal(given.frames, d.past) and not given.actions.any() and given.actions.shape == (3, k, 3)
    action = torch.randn(3, k, 3)
    assert torch.equal(dreamer(name).reset(*given).step(action), d.step(action))
    assert (dreamer(name).reset(cond=torch.eye(4)[1:], seed=d.seeds[:3]).past - d.past).abs().max() > 1e-4 # the condition counts

def test_each_sequence_has_noise_of_its_own():
    few, many = (dreamer().reset(number=n).past for n in (2, 4))
    assert (few - many[:2]).abs().max() < 1e-5 and (many[0] - many[1]).abs().max() > .1
    assert (dreamer().reset(seed=5).past - few[:1]).abs().max() > .1

def test_guided_as_the_dreamer_is():
    cond = torch.eye(4)[:1]
    plain, same, more = (dreamer(guidance_base=base, guidance=w).reset(cond=cond).past for base, w in (('cond', 1.), ('past', 3.), ('cond', 3.)))
    assert torch.equal(plain, same) and not torch.equal(plain, more)

def test_with_a_codec_and_in_latents():
    torch.manual_seed(0)
    codec = VAE((3, 8, 2), (1, 2), (2, 1), (0, 0), kernel_t=1).eval()
    torch.manual_seed(0)
    world = Denoiser(UNet(8, 2, action_dim=6, model_channels=8, channel_mult=(1, 2)))
    d = Dreamer(world, codec, steps=2).reset(number=2)
    assert d.past.shape == (2, 2, 3, 16, 16) and d.step(torch.zeros(2, 2, 3)).shape == (2, 2, 3, 16, 16)
    latent = LatentDreamer(world, codec, steps=2).reset(number=2)
    assert latent.past.shape == (2, 1, 2, 8, 8)

@pytest.mark.parametrize('given, says, kind', [
    (dict(number=0), 'number: expected a whole number', ValueError),
    (dict(number=1.5), 'number', (ValueError, TypeError)),
    (dict(actions=torch.zeros(1, 1, 3)), 'actions: expected none', ValueError),
    (dict(cond=torch.zeros(2, 3)), 'e=4', ValueError),
    (dict(cond=torch.zeros(2, 4), number=3), 'b=3', ValueError),
    (dict(cond=torch.full((1, 4), float('nan'))), 'cond', ValueError),
    (dict(frames=torch.zeros(2, 1, 2, 8, 8), actions=torch.zeros(2, 1, 3), number=3), 'number: expected none', ValueError),
    (dict(seed=[1, 2, 3]), 'seed: expected one for each of 1', ValueError)])
def test_refused_and_left_as_it_was(given, says, kind):
    d = dreamer().reset(number=2)
    before = d.past
    with pytest.raises(kind, match=says): d.reset(**given)
    assert d.past is before and d.b == 2 and d.step(torch.zeros(2, 3)).isfinite().all()

def test_worlds_that_cannot():
    plain = Dreamer(Denoiser(UNet(8, 2, model_channels=8, channel_mult=(1, 2))), steps=2)
    assert plain.reset().past.shape == (1, 1, 2, 8, 8)
    with pytest.raises(ValueError, match='trained without'): plain.reset(cond=torch.zeros(1, 4))
    class Bare(torch.nn.Module):
        def forward(self, x, c_noise): return x
    with pytest.raises(ValueError, match='does not say how large'): Dreamer(Denoiser(Bare()), steps=2).reset()
