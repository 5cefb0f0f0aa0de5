"Players of worlds that have learned nothing: keys of every kind of space, messages that make no sense, recorded play. Run: pytest tests/test_play.py"
import json
import gymnasium, numpy as np, pytest, torch
from gymnasium import spaces
from oniris.codec.codec import PatchPCA
from oniris.codec.vae import VAE
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.record import replay
from oniris.data.spaces import describe_space, space_from
from oniris.diffusion.edm import Denoiser
from oniris.dream.dreamer import Dreamer
from oniris.dream.env import DreamEnv
from oniris.dream.run import load_run, save_run
from oniris.frames import to_uint8
from oniris.nn.unet import UNet
from oniris.play.keys import Keys, default_keys, parse_keys
from oniris.play.player import Player
from oniris.play.recorder import GamePlayer, Recorder

def world(folder, space, stride=1, **sizes): # a run around a network that has learned nothing
    width, rng = 0 if space is None else int(spaces.flatdim(space)), np.random.default_rng(0)
    about = {} if space is None else dict(action_space=describe_space(space))
    if space is not None: space.seed(0)
    with Writer(folder/'data', 'frames', 8, 16, width, about, test=[0]) as w:
        for _ in range(2):
            clip = dict(frames=rng.integers(0, 256, (8, 16, 16, 3), np.uint8))
            if width: clip['actions'] = np.stack([spaces.flatten(space, space.sample()) for _ in range(8)]).astype(np.float32)
            w.add(**clip)
    data = Clips(folder/'data')
    torch.manual_seed(0)
    codec = (PatchPCA(2, 4).fit(np.stack([c['frames'] for c in data])) if stride == 1 else
             VAE((3, 8, 4), time_strides=(stride, 1), space_strides=(2, 1)).eval())
    net = UNet(8, codec.channels, stride * width, model_channels=8, channel_mult=(1,), window=4, **sizes)
    return load_run(save_run(folder/'run', Denoiser(net), codec, data, context=4, sampler=dict(steps=1)), 'cpu')

@pytest.mark.parametrize('space, key, vector', [
    (spaces.Discrete(3), '1', [0, 1, 0]),
    (spaces.MultiBinary(3), '2', [0, 0, 1]),
    (spaces.MultiDiscrete([2, 3]), '1', [1, 0, 0, 1, 0]),
    (spaces.Box(-1, 1, (2,)), 'right', [1, 0]),
])
def test_every_space_that_keys_can_play(tmp_path, space, key, vector):
    try: space_from(describe_space(space))
    except ValueError: pytest.skip('a space that cannot be made again is refused, which is said')
    player = Player(world(tmp_path, space))
    player.press([key])
    before = player.picture
    player.tick()
    assert player.action.tolist() == vector and not np.array_equal(player.picture, before)

def test_spaces_that_keys_cannot_play_are_refused_at_once():
    with pytest.raises(ValueError, match='cannot play Dict'): Keys(spaces.Dict(a=spaces.Discrete(2)), {})

@pytest.mark.parametrize('bound', [dict(left=5), dict(left=True), dict(left='fire'), {'': 1}, {'a++b': 1}, dict(left=-1), dict(left=1.5)])
def test_bindings_that_mean_nothing(bound):
    with pytest.raises(ValueError, match='keys:'): Keys(spaces.Discrete(5), bound)

@pytest.mark.parametrize('text', ['a=left', 'a', 'a=', 'a=1:2:x', 'a=9', '=1'])
def test_keys_of_a_command_line_that_are_none(text):
    with pytest.raises((ValueError, TypeError)): parse_keys(text, default_keys(dict(action_space=describe_space(spaces.Discrete(4)))))

@pytest.mark.parametrize('message', [
    'no JSON', '[]', '{}', dict(type='__init__'), dict(type='press'), dict(type='press', down='up'), dict(type='speed', value=float('nan')),
    dict(type='steps', value=2.5), dict(type='steps', value=True), dict(type='reset', start=99), dict(type='reset', nonsense=1),
    dict(type='film', kind='exe'), dict(type='film'), dict(type='bind', keys=dict(left=9)), dict(type='mouse', move=[1]), dict(type=['play'])])
def test_messages_that_make_no_sense_change_nothing(tmp_path, message):
    player = Player(world(tmp_path, spaces.Discrete(3)))
    before = player.state(pictures=True)
    with pytest.raises((ValueError, TypeError)): player.handle(message)
    assert player.state(pictures=True) == before

def test_a_step_of_several_frames_has_one_action(tmp_path):
    player = Player(world(tmp_path, spaces.Discrete(3), block=2))
    player.press(['1']); player.tick(); player.press(['2'])
    for _ in range(3): player.tick()
    assert [int(a.argmax()) for a in player.actions] == [1, 1, 2, 2]

def test_a_dream_that_is_played_becomes_a_dataset(tmp_path):
    recorder = Recorder(tmp_path/'mine', frames=4)
    player = Player(world(tmp_path, spaces.Discrete(3)), watch=recorder)
    player.press(['1'])
    seen = [player.picture for _ in range(9) if player.tick()]
    clips = Clips(recorder.close())
    assert len(clips) == 2 and 'env_id' not in clips.about and 'person' in clips.about['policy']
    assert np.array_equal(np.concatenate([c['frames'] for c in clips]), np.stack(seen[:8]))
    assert all((c['actions'].argmax(-1) == 1).all() for c in clips)
    with pytest.raises(FileExistsError): Recorder(tmp_path/'mine')

def test_nothing_is_written_where_no_clip_was_filled(tmp_path):
    recorder = Recorder(tmp_path/'mine', frames=16)
    player = Player(world(tmp_path, spaces.Discrete(3)), watch=recorder)
    player.tick()
    assert recorder.close() is None and not (tmp_path/'mine').exists()

def test_a_world_without_actions_has_no_play_to_record(tmp_path):
    player = Player(world(tmp_path, None), watch=Recorder(tmp_path/'mine'))
    with pytest.raises(ValueError, match='no play'): player.tick()

def test_a_dream_that_ends_says_so(tmp_path):
    player = Player(world(tmp_path, spaces.Discrete(3)))
    class Over: # a head that finds every frame over
        def predict(self, z, actions, memory=None): return torch.ones(z.shape[:2]), torch.ones(z.shape[:2], dtype=bool), memory
    assert player.tick()[0][0]['ended'] == ''
    player.referee.head = Over()
    assert player.tick()[0][0]['ended'] == 'over'
    player.referee.run.about['env_id'] = 'LunarLander-v3'
    assert player.state()[0]['ended'] == 'landed'
    player.reset(0)
    assert player.state()[0]['ended'] == ''
    json.dumps(player.state()[0])

@pytest.mark.parametrize('stride', [2, 4])
def test_a_latent_of_several_frames_is_one_action(tmp_path, stride):
    "A world on time-compressed latents: a step of the player and of the environment is `stride` frames, of one action held."
    run = world(tmp_path, spaces.Discrete(3), stride)
    player = Player(run)
    assert run.time_stride == stride and player.dreamer.stride == stride
    player.press(['1']); player.tick(); player.press(['2'])
    for _ in range(2 * stride - 1): player.tick()
    assert [int(a.argmax()) for a in player.actions] == [1] * stride + [2] * stride
    env = DreamEnv(run, reward=False)
    env.reset(seed=0, options=dict(start=0))
    seen = []
    for action in (1, 2):
        picture, *_ = env.step(action)
        seen.append(picture)
    assert env.metadata['render_fps'] == run.fps / stride and not np.array_equal(*seen)
    dreamer = Dreamer.from_run(run, seed=env.dreams.dreamer.seeds)
    frames, actions, *_ = run.start(0)
    held = torch.eye(3)[[1] * stride + [2] * stride][None]     # what the environment dreams: each action `stride` times
    rolled = to_uint8(dreamer.reset(frames, actions).rollout(held))[0]
    assert np.array_equal(rolled[stride - 1::stride], np.stack(seen))
    with pytest.raises(ValueError, match='action'): dreamer.step(held[:, :1]) # the action of one frame is not a latent's

@pytest.mark.parametrize('stride', [2, 4])
def test_play_on_latents_of_several_frames_becomes_a_dataset_of_frames(tmp_path, stride):
    recorder = Recorder(tmp_path/'mine', frames=4)
    player = Player(world(tmp_path, spaces.Discrete(3), stride), watch=recorder)
    seen = []
    for key in ('1', '2'):
        player.press([key])
        seen += [player.picture for _ in range(stride) if player.tick()]
    clips = Clips(recorder.close())
    assert len(clips) == 2 * stride // 4
    assert np.array_equal(np.concatenate([c['frames'] for c in clips]), np.stack(seen))
    played = np.concatenate([c['actions'].argmax(-1) for c in clips])
    assert played.tolist() == [1] * stride + [2] * stride     # every frame with the action that led to it

def test_a_key_in_the_middle_of_a_latent_waits_for_the_next(tmp_path):
    "Of two frames that share a latent the second is already dreamed when the key comes"
    player, other = (Player(world(tmp_path/name, spaces.Discrete(3), 2)) for name in 'ab')
    def both():
        for p in (player, other): p.tick()
        return np.array_equal(player.picture, other.picture)
    for p in (player, other): p.press(['1'])
    assert both()
    player.press(['2'])
    assert both() and not both()

def test_a_game_alone_becomes_a_dataset_that_replays(tmp_path):
    recorder = Recorder(tmp_path/'mine', frames=4)
    player = GamePlayer('CartPole-v1', size=16, seed=1, watch=recorder)
    player.press(['right'])
    for _ in range(30): player.tick()                   # it falls, and stands still
    assert player.state()[0]['ended'] == 'over' and player.game.over
    player.reset(); player.press(['left'])
    for _ in range(5): player.tick()
    data = Clips(recorder.close())
    assert 'person' in data.about['policy'] and data.about['env_id'] == 'CartPole-v1' and len(set(data.seed)) == 2
    for i in range(len(data)):
        again = replay(data, i)
        for k in 'frames', 'states', 'rewards', 'done': assert np.array_equal(again[k], data[i][k]), k

def test_a_game_whose_time_is_up_stands_still(tmp_path):
    gymnasium.register('Short-v0', lambda render_mode: gymnasium.make('CartPole-v1', render_mode=render_mode), max_episode_steps=6)
    recorder = Recorder(tmp_path/'mine', frames=3)
    player = GamePlayer('Short-v0', size=16, seed=1, watch=recorder)
    for k in range(12):
        player.press([['left'], ['right']][k % 2])
        player.tick()
    data = Clips(recorder.close())
    assert player.game.over and len(player.game.actions) == 7 and len(data) == 2
    for i in range(2): assert np.array_equal(replay(data, i)['frames'], data[i]['frames'])

@pytest.mark.parametrize('message', [dict(type='steps', value=3), dict(type='compare', on=True), dict(type='reset', start=-1)])
def test_a_game_alone_has_no_dream_to_ask(message):
    player = GamePlayer('CartPole-v1', size=16)
    before = player.state(pictures=True)
    with pytest.raises(ValueError): player.handle(message)
    assert player.state(pictures=True) == before

@pytest.mark.parametrize('names, rest', [
    (['left', 'right', 'forward', 'pickup', 'drop', 'toggle', 'done'], 6), (['LANE_LEFT', 'IDLE', 'LANE_RIGHT', 'FASTER', 'SLOWER'], 1),
    (['NOOP', 'FIRE', 'UP'], 0), (['push left', 'push right'], None), (['Turn', 'StandStill'], 1), (['NO_OP', 'go'], 0), (['done', 'noop'], 1)])
def test_doing_nothing_is_found_by_its_name(names, rest):
    about = dict(action_space=describe_space(spaces.Discrete(len(names))), action_names=names)
    keys = default_keys(about)
    assert keys.rest == rest and len(set(keys.bound)) == len(keys.bound) == len(names) - (rest is not None)
    assert keys.resting() == ('the last action goes on' if rest is None else names[rest].lower().replace('_', ' '))

def test_five_thousand_actions_have_as_many_keys_as_there_are():
    names = [f'item {i}' for i in range(5000)]
    assert 30 < len(default_keys(dict(action_space=describe_space(spaces.Discrete(5000)), action_names=names)).bound) < 50
