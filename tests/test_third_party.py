"""Whole roads of other people's environments, tiny: record -> look -> train -> dream -> evaluate -> play -> Dream-v0.
A road is skipped where its package is missing; tests/roads_third_party.py installs them all. Run: pytest tests/test_third_party.py"""
import importlib.util, json
from pathlib import Path
import gymnasium, numpy as np, pytest
from oniris.data.clips import Clips
from oniris.data.environments import describe_env
from oniris.data.look import oniris_look
from oniris.data.record import oniris_record, replay
from oniris.data.sources import oniris_import
from oniris.dream.rollout import oniris_dream
from oniris.evaluation.evaluate import oniris_evaluate
from oniris.frames import save_gif, save_mp4
from oniris.play.player import Player
from oniris.play.recorder import GamePlayer, Recorder
from oniris.recipes.train_world import oniris_train

TINY = dict(steps=2, batch=2, codecsteps=2)
BRIEF = dict(clips=2, horizon=2, seeds=1, long=0, dreams=1, fit=2)
ROADS = { # package: environment, what doing nothing is called, more options of the recording
    'ale_py': ('ALE/Pong-v5', 'noop', {}),
    'minigrid': ('MiniGrid-Empty-5x5-v0', 'done', {}),
    'mujoco': ('HalfCheetah-v5', 'nothing', dict(options='{"width": 64, "height": 64}')),
    'highway_env': ('highway-fast-v0', 'idle', {})}

def report(run):
    file, = Path(run).rglob('evaluation.json')
    return json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f'{name} is no JSON'))

def as_a_game(run, rest=None):
    "The player with the game beside it, and the environment of the dream: what they say and show."
    player = Player(run, compare=rest is not None, device='cpu')
    about, state = player.handle(dict(type='hello'))
    assert about[0]['type'] == 'about' and (rest is None or about[0]['rest'] == rest)
    for down in [], [next(iter(player.keys.bound))]:
        player.handle(dict(type='press', down=down))
        (state, pictures), *_ = player.tick()
        assert len(pictures) == (1 if rest is None else 2) and not state['ended']
    env = gymnasium.make('oniris/Dream-v0', run=run, reward=False)
    env.reset(seed=0)
    picture, reward, *_ = env.step(env.action_space.sample())
    assert picture.shape == env.observation_space.shape and reward == 0

@pytest.mark.parametrize('package', ROADS)
def test_an_environment(package, tmp_path, monkeypatch, capsys):
    if importlib.util.find_spec(package) is None: pytest.skip(f'{package} is not installed')
    monkeypatch.chdir(tmp_path)
    env, rest, options = ROADS[package]
    oniris_record(env=env, out='data', clips=8, frames=8, size=16, each=1, longest=9, test=.25, workers=1, **options)
    data = Clips('data')
    assert len(data) == 8 and data.about['env_id'].endswith(env) and data.about['action_space']['width'] == data.action_dim
    assert np.array_equal(replay(data, 3)['frames'], data[3]['frames']) # the simulator answers for it
    oniris_look('data')
    oniris_train(data='data', out='run', **TINY)
    oniris_dream(run='run', frames=4)
    assert Path('dream.gif').stat().st_size
    oniris_evaluate(run='run', **BRIEF)
    assert all(exam['rows'] for exam in report('run')['exams']) and Path('run/evaluation/actions.png').is_file()
    as_a_game('run', rest)
    recorder = Recorder('mine', frames=4)
    game = GamePlayer(env, size=16, watch=recorder, **json.loads(options.get('options', '{}')))
    for _ in range(5): game.tick()
    assert np.array_equal(replay(Clips(recorder.close()), 0)['actions'].shape, (4, data.action_dim))
    assert 'Traceback' not in capsys.readouterr().err

@pytest.mark.parametrize('package', ['ale_py', 'minigrid', 'highway_env'])
def test_the_name_that_is_typed_and_the_name_with_its_module(package):
    if importlib.util.find_spec(package) is None: pytest.skip(f'{package} is not installed')
    env, *_ = ROADS[package]
    assert describe_env(env) == describe_env(f'{package}:{env}')

def drift(n, side=32, seed=0):
    "A wall of colours that moves by."
    wall = np.random.default_rng(seed).integers(0, 255, (side // 8, (side + 2 * n) // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([wall[:, 2 * i:2 * i + side] for i in range(n)])

def films(kind):
    Path('films').mkdir()
    if kind == 'gifs':
        for i in range(6): save_gif(drift(20, seed=i), f'films/{i}.gif', fps=10)
        return 'films'
    pytest.importorskip('av')
    save_mp4(drift(120, 40), 'films/long.mp4', fps=10)
    return 'films/long.mp4'

def made_of_films(kind):
    "A run: of a film that is imported first, of a folder that is given to oniris_train as it is."
    source = films(kind)
    if kind == 'gifs': return oniris_train(data=source, out='run', frames=8, size=16, **TINY)
    oniris_import(source, 'data', frames=8, size=16, test=.25, quiet=True)
    assert 0 < sum(Clips('data').index['test']) < len(Clips('data').index['test'])
    oniris_look('data')
    oniris_train(data='data', out='run', **TINY)

@pytest.mark.parametrize('kind', ['gifs', 'one long film'])
def test_films(kind, tmp_path, monkeypatch):
    "No simulator, no actions: what needs one is left out."
    monkeypatch.chdir(tmp_path)
    made_of_films(kind)
    oniris_dream(run='run', frames=4)
    oniris_dream(run='run', frames=4, start='films/0.gif' if kind == 'gifs' else 'films/long.mp4', out='further.gif')
    oniris_evaluate(run='run', **BRIEF)
    assert all(exam['rows'] for exam in report('run')['exams']) and not Path('run/evaluation/actions.png').exists()
    player = Player('run', device='cpu')
    player.handle(dict(type='hello'))
    assert len(player.tick()[0][1]) == 1
    with pytest.raises(ValueError, match='no actions'): gymnasium.make('oniris/Dream-v0', run='run')
