"""Dreams as people use them: conditions, guidance, names of files, constant rewards, changed manifests. Tiny untrained worlds, seconds."""
import json, warnings
from pathlib import Path
import gymnasium as gym
import oniris
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from oniris.codec.codec import Codec, PatchPCA
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.spaces import describe_space
from oniris.diffusion.edm import Denoiser
from oniris.dream.dreamer import Dreamer
from oniris.dream.env import DreamEnv, DreamVectorEnv
from oniris.dream.reward import describe_errors, reward_error, RewardHead
from oniris.dream.train_reward import RewardObjective, train_reward, _new_head, Rewarded
from oniris.dream.rollout import dream_again, free_running, oniris_dream, own_start, teacher_forced
from oniris.dream.run import clip_context, export_run, load_run, save_run
from oniris.nn.unet import UNet

torch.set_num_threads(1)

def network(seed=0, size=8, channels=3, **more):
    torch.manual_seed(seed)
    net = UNet(size, channels, **dict(action_dim=3, model_channels=8, channel_mult=(1,), video_attn=(size,), window=3) | more)
    for p in net.parameters():
        if p.ndim < 2: torch.nn.init.normal_(p)
    return Denoiser(net).eval()

def recording(path, n=8, t=12, size=16, actions=3, cond=0, rewards=None, text=None):
    rng = np.random.default_rng(0)
    about = dict(action_space=describe_space(Discrete(actions))) if actions else {}
    if cond: about['labels'] = [f'kind {i}' for i in range(cond)]
    with Writer(path, 'frames', t, size, actions, about, fps=10, test=.25) as w:
        for i in range(n):
            frames = rng.integers(0, 256, (t, size, size, 3), dtype=np.uint8)
            a = np.eye(actions, dtype=np.float32)[rng.integers(0, actions, t)] if actions else np.zeros((t, 0), np.float32)
            if actions: a[0] = 0
            more = {}
            if cond: more['cond'] = np.eye(cond, dtype=np.float32)[i % cond] * cond ** .5
            if rewards is not None:
                done = np.zeros(t, bool)
                done[t - 3:] = i % 2
                more |= dict(rewards=np.full(t, rewards, np.float32), done=done)
            w.add(frames, a, episode=i, seed=i, **more)
    return path

def world(path, data, time_stride=1, **more):
    net = {k: more.pop(k) for k in ('action_dim', 'cond_dim') if k in more}
    held = Clips(data, 'test')
    p = time_stride
    codec = PatchPCA(2, 3).fit(np.stack([held[i]['frames'] for i in range(2)])) if p == 1 else Pairs()
    net = dict(action_dim=p * held.action_dim, cond_dim=held.cond_dim, channels=3 * p) | net
    return save_run(path, network(**net), codec, held, context=4, starts=2, **dict(sampler=dict(steps=1)) | more)

class Pairs(Codec):
    "Two frames a latent"
    def __init__(self): super().__init__(2, 6, time_stride=2); self.config = {}
    def encode(self, video):
        b, t, c, h, w = video.shape
        x = torch.nn.functional.avg_pool2d(video.flatten(0, 1), 2).unflatten(0, (b, t // 2, 2))
        return x.flatten(2, 3)
    def decode(self, z):
        b, t, c, h, w = z.shape
        x = z.unflatten(2, (2, 3)).flatten(1, 2).flatten(0, 1)
        return torch.nn.functional.interpolate(x, scale_factor=2).unflatten(0, (b, 2 * t))

@pytest.fixture
def captioned(tmp_path):
    data = recording(tmp_path / 'data', cond=2)
    return load_run(world(tmp_path / 'run', data), 'cpu'), Clips(data, 'test')

# ---- conditions

def test_conditions_reach_every_rollout(captioned, monkeypatch):
    run, clips = captioned
    seen, reset, some = [], Dreamer.reset, Dreamer.reset_some
    monkeypatch.setattr(Dreamer, 'reset', lambda self, *a, **k: (seen.append((*a, *k.values())[2] is not None), reset(self, *a, **k))[1])
    monkeypatch.setattr(Dreamer, 'reset_some', lambda self, rows, *a, **k: (seen.append(a[2] is not None), some(self, rows, *a, **k))[1])
    given = clip_context(clips, range(2))
    free_running(Dreamer.from_run(run), given, 4, progress=False)
    teacher_forced(Dreamer.from_run(run), given, 4, (1, 2), progress=False)
    dream_again(run, clips, 2)
    env = DreamEnv(run, reward=False)
    env.reset(seed=0); env.reset()
    DreamVectorEnv(run, 2, reward=False).reset(seed=0)
    assert len(seen) >= 6 and all(seen)

def test_a_condition_changes_what_is_dreamed(captioned):
    run, clips = captioned
    given = clip_context(clips, range(2))
    assert given.cond is not None
    def dream(cond): return free_running(Dreamer.from_run(run), given._replace(cond=cond), 4, progress=False)
    right = dream(given.cond)
    assert torch.equal(right, dream_again(run, clips, 2)[1])
    assert not torch.allclose(right, dream(None), atol=1e-3)

def test_start_has_its_condition(captioned):
    run, _ = captioned
    frames, actions, cond = run.start(0)
    assert cond.shape == (1, 2) and torch.equal(cond[0], torch.from_numpy(run.starts['cond'][0]))
    with pytest.raises(IndexError, match='expected 0 to 1, got 2'): run.start(2)

def test_label_from_the_command_line(captioned, tmp_path, capsys):
    run, _ = captioned
    oniris_dream(run=str(run.path), frames=2, out=str(tmp_path / 'a'), label='kind 1', device='cpu')
    with pytest.raises(SystemExit, match="expected one of .*got 'kind 7'"):
        oniris_dream(run=str(run.path), frames=2, out=str(tmp_path / 'b'), label='kind 7', device='cpu')
    with pytest.raises(SystemExit, match='without captions'):
        oniris_dream(run=str(run.path), frames=2, out=str(tmp_path / 'b'), text='a ball', device='cpu')

# ---- guidance

GUIDED = dict(steps=1, guidance=1.5, guidance_base='actions')

def test_guidance_that_was_never_trained_is_left_out(tmp_path):
    data = recording(tmp_path / 'data')
    run = load_run(world(tmp_path / 'run', data, sampler=GUIDED, cond_dropout=0.), 'cpu')
    with pytest.warns(UserWarning, match='left out'): dreamer = Dreamer.from_run(run)
    assert dreamer.guidance == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert Dreamer.from_run(run, guidance=1.5).guidance == 1.5      # asked for

def test_guidance_that_was_trained_stays(tmp_path):
    data = recording(tmp_path / 'data')
    for i, more in enumerate((dict(cond_dropout=.1), dict(preset=dict(train=dict(cond_dropout=.1))), dict(preset=dict(drop=.1)))):
        run = load_run(world(tmp_path / f'run{i}', data, sampler=GUIDED, **more), 'cpu')
        assert run.cond_dropout == .1 and Dreamer.from_run(run).guidance == 1.5

def test_films_do_not_pay_twice(tmp_path):
    run = load_run(world(tmp_path / 'run', recording(tmp_path / 'data', actions=0), sampler=GUIDED), 'cpu')
    assert Dreamer.from_run(run).guidance == 1 and Dreamer.from_run(run, guidance=2.).guidance == 1

def test_shipped_world_dreams_as_it_was_measured():
    assert load_run('lander', 'cpu').sampler.get('guidance', 1.) == Dreamer.from_run('lander').guidance

# ---- files

def test_manifest_is_hashed(tmp_path):
    path = world(tmp_path / 'run', recording(tmp_path / 'data'))
    page = path / 'run.json'
    whole = json.loads(page.read_text())
    assert whole['format'] == 2
    page.write_text(json.dumps(whole | dict(fps=20), indent=1))
    with pytest.raises(ValueError, match='changed by hand'): load_run(path)
    page.write_text(json.dumps(whole))                                   # another layout of the same content is the same content
    assert load_run(path, 'cpu').fps == 10

def test_first_format_loads_with_its_names(tmp_path):
    path = world(tmp_path / 'run', recording(tmp_path / 'data'))
    page = path / 'run.json'
    old = {k: v for k, v in json.loads(page.read_text()).items() if k not in ('sha256', 'cond_dropout')}
    page.write_text(json.dumps(old | dict(format=1, sampler=dict(steps=1, guidance=1.3, against='actions'))))
    assert load_run(path, 'cpu').sampler['guidance_base'] == 'actions'
    assert load_run(export_run(path, tmp_path / 'new', '# card'), 'cpu').manifest['format'] == 2
    page.write_text(json.dumps(old | dict(format=3)))
    with pytest.raises(ValueError, match='expected format 1 or 2'): load_run(path)

def test_a_hub_is_asked_only_by_hf(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda name, **k: asked.append(name) or str(tmp_path))
    for missing in ('runs/demo', 'someone/world', './x/y'):
        with pytest.raises(FileNotFoundError, match='no such directory'): load_run(missing)
    assert not asked
    with pytest.raises(FileNotFoundError, match='run.json'): load_run('hf:someone/world')
    assert asked == ['someone/world']

@pytest.mark.parametrize('out, gif', [('world_v1.5', 'world_v1.5.gif'), ('a.gif', 'a.gif'), ('a.MP4', 'a.gif'), ('a', 'a.gif'), ('a.b.mp4', 'a.b.gif')])
def test_only_a_films_ending_is_an_ending(tmp_path, out, gif):
    run = world(tmp_path / 'run', recording(tmp_path / 'data'))
    oniris_dream(run=str(run), frames=2, out=str(tmp_path / out), device='cpu')
    assert {f.suffix for f in tmp_path.iterdir() if f.is_file()} <= {'.gif', '.mp4'} and (tmp_path / gif).is_file()

def test_command_refuses_in_one_line(tmp_path):
    run = str(world(tmp_path / 'run', recording(tmp_path / 'data')))
    for bad, said in ((dict(run='nowhere'), 'no such directory'), (dict(start='9'), 'start'), (dict(action=7), 'action'), (dict(frames=0), 'frames'),
                      (dict(out=str(tmp_path)), 'directory'), (dict(start='nothing.png'), 'nothing.png'), (dict(device='quantum'), 'device')):
        with pytest.raises(SystemExit, match=said): oniris_dream(**dict(run=run, frames=1, out=str(tmp_path / 'x'), device='cpu') | bad)

def test_a_file_of_actions(tmp_path, capsys):
    "What somebody wants to be done, frame by frame: numbers, or vectors; what is no action of this world is refused by its frame."
    run = world(tmp_path/'run', recording(tmp_path/'data'))
    out = str(tmp_path/'x.gif')
    (tmp_path/'keys.csv').write_text('1\n1\n2\n0\n')
    np.save(tmp_path/'keys.npy', np.eye(3, dtype=np.float32)[[1, 1, 2, 0]])
    films = []
    for name in 'keys.csv', 'keys.npy':
        oniris_dream(run=str(run), actions=str(tmp_path/name), out=out)
        films.append(Path(out).read_bytes())
        assert f'the actions of {tmp_path/name}' in capsys.readouterr().out
    assert films[0] == films[1]
    for text, says in ('1\n7\n', 'frame 1, 7'), ('1,2\n', 'expected'), ('left\n', 'row of numbers'):
        (tmp_path/'bad.csv').write_text(text)
        with pytest.raises(SystemExit, match=says): oniris_dream(run=str(run), actions=str(tmp_path/'bad.csv'), out=out)
    with pytest.raises(SystemExit, match='no such file'): oniris_dream(run=str(run), actions='nosuch.csv', out=out)

def test_starting_from_a_picture_or_a_film(tmp_path):
    from PIL import Image
    from oniris.frames import save_gif
    run = load_run(world(tmp_path / 'run', recording(tmp_path / 'data')), 'cpu')
    frames = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), dtype=np.uint8)
    Image.fromarray(frames[0]).save(tmp_path / 'a.png')
    save_gif(frames, tmp_path / 'a.gif', 10, 1)
    assert own_start(run, tmp_path / 'a.png').frames.shape == (1, 1, 3, 16, 16)
    film = own_start(run, tmp_path / 'a.gif')
    assert film.frames.shape == (1, 4, 3, 16, 16) and film.actions[0, 1:].sum() == 3
    oniris_dream(run=str(run.path), frames=2, out=str(tmp_path / 'x'), start=str(tmp_path / 'a.gif'), device='cpu')
    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(ValueError, match='neither a picture nor a film'): own_start(run, tmp_path / 'text.png')

# ---- more than one action a latent

def test_two_frames_a_latent(tmp_path):
    data = recording(tmp_path / 'data')
    Pairs()                                                             # known by its name
    run = load_run(world(tmp_path / 'run', data, time_stride=2), 'cpu')
    clips = Clips(data, 'test')
    real, dreamed = dream_again(run, clips, 2)
    assert dreamed.shape[1] == 8
    given = clip_context(clips, range(2))
    forced = teacher_forced(Dreamer.from_run(run), given, 4, (1, 2, 3), progress=False)
    assert torch.allclose(forced[:, :2], dreamed[:, :2], atol=1e-5)
    oniris_dream(run=str(run.path), frames=3, out=str(tmp_path / 'x'), device='cpu')     # 3 is no multiple of 2
    env = DreamEnv(run, horizon=5, reward=RewardHead(6, (8, 8), 6), threshold=1.)
    _, info = env.reset(seed=0)
    by_hand = Dreamer.from_run(run, seed=env.dreams.dreamer.seeds).reset(*run.start(info['start']))
    expected = by_hand.rollout(torch.eye(3)[[2, 2, 0, 0]][None])[0, 1::2]
    seen = np.stack([env.step(2)[0], env.step(0)[0]])
    assert np.abs(seen.astype(int) - ((expected.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).numpy()).max() <= 1

# ---- rewards

@pytest.mark.parametrize('pay', [1., 0., -3.])
def test_constant_rewards(tmp_path, pay):
    data = recording(tmp_path / 'data', rewards=pay)
    run = load_run(world(tmp_path / 'run', data), 'cpu')
    head, errors = train_reward(run, steps=2, batch=2, dreams=4, ahead=4, bar=False)
    assert head.scale == 1 and errors['r2'] is None
    assert f'all are {pay:.3g}' in describe_errors(errors)
    text = (tmp_path / 'run' / 'reward' / 'errors.json').read_text()
    json.loads(text, parse_constant=lambda c: pytest.fail(f'{c} is no JSON'))

def test_scale_of_few_rewards():
    z, a = torch.zeros(1, 2, 3, 8, 8), torch.zeros(1, 2, 3)
    for rewards, done in ((torch.tensor([[0., 5.]]), torch.tensor([[False, False]])), (torch.tensor([[0., 5.]]), torch.tensor([[False, True]]))):
        head = _new_head(Rewarded(z, a, rewards, done), 0)
        assert head.scale == 1 and json.dumps(reward_error(head, z, a, rewards, done), allow_nan=False)
    with pytest.raises(ValueError, match='scale'): RewardHead(3, (8, 8), 3, scale=float('nan'))

def test_parts_of_a_reward_batch_make_up_the_whole():
    g = torch.Generator().manual_seed(0)
    z, a = torch.randn(6, 5, 3, 8, 8, generator=g), torch.randn(6, 5, 3, generator=g)
    clips = Rewarded(z, a, torch.ones(6, 5), torch.zeros(6, 5, dtype=torch.bool))
    head = RewardHead(3, (8, 8), 3)
    for dreams in (None, clips):
        objective = RewardObjective(head, clips, dreams, 4, .3, .5, 0)
        for step in range(4):
            parts = [objective(step, microbatch=(i, 2))[0] for i in range(2)]
            assert torch.allclose(sum(parts) / 2, objective(step)[0], atol=1e-6)

def test_advice_works_when_followed(tmp_path):
    run = load_run(world(tmp_path / 'run', recording(tmp_path / 'data', rewards=2.)), 'cpu')
    with pytest.warns(UserWarning, match=f'oniris_train_reward --run {run.path}') as said: DreamEnv(run)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        DreamEnv(run)                                                   # said once
    from oniris.dream.train_reward import oniris_train_reward
    oniris_train_reward(run=str(run.path), steps=2, batch=2, dreams=2, device='cpu')
    env = DreamEnv(run, reward=True, threshold=1.)
    env.reset(seed=0)
    assert env.step(0)[1] != 0

def test_both_checkers_have_no_complaint(tmp_path):
    from gymnasium.utils.env_checker import check_env
    run = load_run(world36(tmp_path), 'cpu')
    head = RewardHead(3, (18, 18), 3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_env(gym.make('oniris/Dream-v0', run=run, reward=head, threshold=1.).unwrapped)
        sb3 = pytest.importorskip('stable_baselines3.common.env_checker')
        sb3.check_env(gym.make('oniris/Dream-v0', run=run, reward=head, threshold=1.).unwrapped)

def world36(path):
    held = Clips(recording(path / 'data', size=36), 'test')
    codec = PatchPCA(2, 3).fit(np.stack([held[i]['frames'] for i in range(2)]))
    return save_run(path / 'run', network(size=18), codec, held, context=4, starts=2, sampler=dict(steps=1))
