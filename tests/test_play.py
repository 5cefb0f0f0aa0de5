"Players of worlds that have learned nothing: keys of every kind of space, messages that make no sense, recorded play. Run: pytest tests/test_play.py"
import json
import numpy as np, pytest, torch
from gymnasium import spaces
from oniris.codec.codec import PatchPCA
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.record import replay
from oniris.data.spaces import describe_space, space_from
from oniris.diffusion.edm import Denoiser
from oniris.dream.run import load_run, save_run
from oniris.nn.unet import UNet
from oniris.play.keys import Keys, default_keys, parse_keys
from oniris.play.player import Player, Recorder

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
    pca = PatchPCA(2, 4, stride) if stride > 1 else PatchPCA(2, 4)
    codec = pca.fit(np.stack([c['frames'] for c in data]))
    torch.manual_seed(0)
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
