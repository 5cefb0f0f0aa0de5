"""Environments as people write them: what is recorded all the same, what is said where it cannot be. Each case is a trait of somebody's own environment."""
import warnings
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from oniris.data.clips import Clips
from oniris.data.environments import EnvironmentFailed, describe_env, env_from, find_env
from oniris.data.record import FIELDS, oniris_record, record, replay
from oniris.data.spaces import action_from, describe_space, space_from

class Dot(gym.Env):
    "A dot that walks; the base of all."
    metadata = dict(render_modes=['rgb_array'], render_fps=10)
    action_space, observation_space, length = spaces.Discrete(4), spaces.Box(-1, 1, (2,), np.float32), 40
    def __init__(self, speed=.1, frames=None, render_mode=None): self.speed, self.render_mode = speed, render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.p, self.k = self.np_random.uniform(-.5, .5, 2), 0
        return self.obs(), {}
    def move(self, a): return np.array([(-1, 0), (1, 0), (0, -1), (0, 1)][int(a)]) * self.speed
    def obs(self): return self.p.astype(np.float32)
    def step(self, a):
        self.p, self.k = np.clip(self.p + self.move(a), -1, 1), self.k + 1
        return self.obs(), 1., self.k >= self.length, False, {}
    def render(self):
        f = np.zeros((48, 48, 3), np.uint8)
        y, x = ((self.p + 1) / 2 * 40).astype(int)
        f[y:y + 8, x:x + 8] = 255, 200, 50
        return f

def altered(step): return lambda self, a: step(*Dot.step(self, a))
class Float(Dot): render = lambda self: Dot.render(self) / 255.
class Gray(Dot): render = lambda self: Dot.render(self)[..., 0]
class Gray1(Dot): render = lambda self: Dot.render(self)[..., :1]
class Rgba(Dot): render = lambda self: np.concatenate([Dot.render(self), np.full((48, 48, 1), 255, np.uint8)], -1)
class Listed(Dot):
    metadata = dict(render_modes=['rgb_array_list'], render_fps=10)
    render = lambda self: [Dot.render(self)]
class NoFps(Dot): metadata = dict(render_modes=['rgb_array'], render_fps=None)
class IntDone(Dot): step = altered(lambda o, r, d, t, i: (o, r, int(d), t, i))
class ArrayReward(Dot): step = altered(lambda o, r, d, t, i: (o, np.array([r]), d, t, i))
class NoneReward(Dot): step = altered(lambda o, r, d, t, i: (o, None, d, t, i))
class WordReward(Dot): step = altered(lambda o, r, d, t, i: (o, 'well done', d, t, i))
class NanObs(Dot): obs = lambda self: np.array([np.nan, 0], np.float32)
class GraphObs(Dot):
    observation_space = spaces.Graph(spaces.Box(-1, 1, (2,)), None)
    obs = lambda self: spaces.GraphInstance(self.p[None].astype(np.float32), None, None)
class MultiDisc(Dot):
    action_space = spaces.MultiDiscrete([3, 3])
    move = lambda self, a: (np.asarray(a) - 1) * .1
class MultiBin(Dot):
    action_space = spaces.MultiBinary(4)
    move = lambda self, a: (np.asarray(a, int)[[1, 3]] - np.asarray(a, int)[[0, 2]]) * .1
class DictAct(Dot):
    action_space = spaces.Dict(dict(move=spaces.Discrete(4), speed=spaces.Box(0, 1, (1,), np.float32)))
    move = lambda self, a: Dot.move(self, a['move']) * a['speed']
class TupleAct(Dot):
    action_space = spaces.Tuple((spaces.Discrete(4), spaces.Discrete(2)))
    move = lambda self, a: Dot.move(self, a[0]) * (1 + a[1])
class IgnoresSeed(Dot):
    def step(self, a):
        self.p = self.p + np.random.normal(0, .1, 2)
        return Dot.step(self, a)
class HumanOnly(Dot): metadata = dict(render_modes=['human'], render_fps=10)
class FourTuple(Dot): step = altered(lambda o, r, d, t, i: (o, r, d, i))
class NoSeed(Dot): reset = lambda self: (np.zeros(2), {})
class NoActions(Dot): action_space = None
class EndsAtOnce(Dot): length = 1
class Crashes(Dot):
    "In every second episode."
    def step(self, a):
        if self.np_random.random() < .02: raise RuntimeError('the simulator lost its connection')
        return Dot.step(self, a)

for c in list(globals().values()):
    if isinstance(c, type) and issubclass(c, Dot): gym.register(f'Case{c.__name__}-v0', c)
gym.register('CaseShort-v0', Dot, max_episode_steps=20)

def recorded(name, path, **more):
    options = dict(clips=4, frames=16, size=16, policy='random', workers=1, test=0, progress=False) | more
    return Clips(record(f'Case{name}-v0', path/name, **options), verify=True)

@pytest.mark.parametrize('name', ['Float', 'Rgba', 'Listed', 'NoFps', 'IntDone', 'ArrayReward', 'NoneReward'])
def test_recorded_as_if_it_were_usual(name, tmp_path):
    usual, clips = recorded('Dot', tmp_path), recorded(name, tmp_path)
    for i in range(4):
        assert np.array_equal(clips[i]['frames'], usual[i]['frames']) and np.array_equal(clips[i]['done'], usual[i]['done'])
    assert clips.index['fields'] == usual.index['fields']

@pytest.mark.parametrize('name', ['Gray', 'Gray1'])
def test_grey_pictures_have_three_equal_channels(name, tmp_path):
    x = recorded(name, tmp_path)[0]['frames']
    assert (x == x[..., :1]).all() and x.max() > 0

@pytest.mark.parametrize('name,field', [('NanObs', 'states'), ('GraphObs', 'states'), ('WordReward', 'rewards')])
def test_what_cannot_be_kept_is_left_out_with_a_word(name, field, tmp_path):
    with pytest.warns(UserWarning, match=f'{field} are not recorded'): clips = recorded(name, tmp_path)
    assert field not in clips.index['fields'] and field in clips.about['left_out']

@pytest.mark.parametrize('name', ['MultiDisc', 'MultiBin', 'DictAct', 'TupleAct'])
def test_every_action_space_is_made_again_and_replayed(name, tmp_path):
    clips = recorded(name, tmp_path)
    space = space_from(clips.about['action_space'])
    assert space == globals()[name].action_space and space.contains(action_from(space, clips[0]['actions'][3]))
    again = replay(clips, 1)
    for k in FIELDS: assert np.array_equal(again[k], clips[1][k])
    env_from(clips.about).close()

def test_a_simulator_that_ignores_its_seed_is_noticed(tmp_path):
    with pytest.warns(UserWarning, match='ignores its seed'): clips = recorded('IgnoresSeed', tmp_path)
    assert not clips.about['replays'] and recorded('Dot', tmp_path).about['replays']

@pytest.mark.parametrize('name,said', [('HumanOnly', 'draws into an array'), ('FourTuple', 'step 1 of the environment failed'),
    ('NoSeed', 'reset of the environment failed'), ('NoActions', 'flatten to a vector, got None'), ('EndsAtOnce', 'the longest had 2; frames=2 fits')])
def test_what_cannot_be_recorded_is_said(name, said, tmp_path):
    with pytest.raises(ValueError, match=said): recorded(name, tmp_path)
    assert not (tmp_path/name/'index.json').exists()

def test_an_episode_that_crashes_is_named_or_left_out(tmp_path):
    with pytest.raises(EnvironmentFailed, match=r'episode \d+ \(seed \d+\): step \d+ .* lost its connection; lenient'): recorded('Crashes', tmp_path, clips=40)
    with pytest.warns(UserWarning, match='were left out'): clips = recorded('Crashes', tmp_path, clips=40, lenient=True)
    assert len(clips) == 40 and clips.about['failed'] > 0

def test_clips_that_no_episode_can_fill_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match='longest=1000'): recorded('Dot', tmp_path, frames=1200)
    with pytest.raises(ValueError, match='20 steps, 21 frames'): recorded('Short', tmp_path, frames=30)

def test_options_wrappers_and_rectangles(tmp_path):
    clips = recorded('Dot', tmp_path, options=dict(frames=3, speed=.2), size='24x36', wrap=f'{__name__}:reverse' if __name__ != '__main__' else None)
    assert clips.about['env'] == dict(frames=3, speed=.2) and clips.size == (24, 36)
    assert np.array_equal(replay(clips, 0)['frames'], clips[0]['frames'])

def reverse(env): return gym.wrappers.TransformReward(env, lambda r: -r)

@pytest.mark.parametrize('bad', [dict(clips=0), dict(frames=0), dict(skip=1.5), dict(tail=-1), dict(test=1), dict(shard=0), dict(size=0), dict(after=2)])
def test_numbers_that_make_no_sense_are_named(bad, tmp_path):
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))): recorded('Dot', tmp_path, **bad)

def test_a_command_says_one_line(tmp_path, capsys):
    for bad in dict(env='CartPol-v1'), dict(env='ALE/NoSuchGame-v5'), dict(options='[1]'), dict(policy='clever'), dict(policy='heuristic', env='CartPole-v1'):
        with pytest.raises((SystemExit, ValueError, gym.error.Error)): oniris_record(out=str(tmp_path/'x'), **bad)
    assert not (tmp_path/'x').exists()

def test_few_episodes_hold_out_time(tmp_path):
    with pytest.warns(UserWarning, match='last stretch of time'): recorded('Dot', tmp_path, clips=8, frames=4, test=.1)
    train, test = Clips(tmp_path/'Dot', 'train'), Clips(tmp_path/'Dot', 'test')
    assert len(train) + len(test) + len(train.index['gap']) == 8 and max(train.rows) < min(test.rows)

def test_no_more_than_a_fifth_lies_after_the_end(tmp_path):
    clips = recorded('Dot', tmp_path, clips=12, frames=16, tail=30)
    assert np.mean([clips[i]['done'].mean() for i in range(12)]) <= .2
    clips = recorded('EndsAtOnce', tmp_path, clips=2, frames=16, tail=30, after=1.)
    assert clips[0]['done'][1:].all()

def test_clips_are_added(tmp_path):
    whole = recorded('Dot', tmp_path, clips=9)
    more = dict(clips=6, frames=16, size=16, policy='random', workers=1, test=0, progress=False)
    record('CaseDot-v0', tmp_path/'more', **more)
    clips = Clips(record('CaseDot-v0', tmp_path/'more', **more | dict(clips=9), add=True), verify=True)
    for i in range(9): assert np.array_equal(clips[i]['frames'], whole[i]['frames'])
    with pytest.raises(ValueError, match='other arguments'): record('CaseDot-v0', tmp_path/'more', **more | dict(clips=12, skip=2), add=True)

def test_a_failed_overwrite_leaves_the_old(tmp_path):
    before = recorded('Dot', tmp_path).hash
    with pytest.raises(ValueError): record('CaseFourTuple-v0', tmp_path/'Dot', 4, 16, 16, 'random', workers=1, overwrite=True, progress=False)
    assert Clips(tmp_path/'Dot', verify=True).hash == before

def test_packages_are_found_or_named():
    assert find_env('CartPole-v1') == 'CartPole-v1'
    for name in 'ALE/NoSuchGame-v5', 'MiniGrid-NoSuch-v0':
        try: assert ':' in find_env(name)  # the package is installed
        except ValueError as e: assert 'pip install' in str(e) and ':' in str(e)
    assert describe_env('CaseShort-v0')['limit'] == 20 and describe_space(Dot.action_space) == describe_env('CaseDot-v0')['action_space']
