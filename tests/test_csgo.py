"Counter-Strike with its own preset, narrow: files in the published layout -> import -> csgo_4090 -> dream -> keys and mouse in the player."
import numpy as np
from oniris.data.clips import Clips
from oniris.data.videos import import_videos
from oniris.games.csgo import CSGO_X, csgo_names, csgo_vector, save_csgo
from oniris.play.player import Player
from oniris.recipes.presets import find_preset
from oniris.recipes.train_world import train_world

def panorama(n, seed, h=150, w=280):
    "A wall that the mouse turns, and what the mouse did"
    g = np.random.default_rng(seed)
    wall = g.integers(0, 255, (h // 10, 150, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    turns, fire = g.choice([-30, 0, 30], n), g.random(n) < .2
    at = np.clip(600 + np.cumsum(turns) - turns, 0, wall.shape[1] - w)
    return np.stack([wall[:, x:x + w] for x in at]), np.stack([csgo_vector('w', (t, 0), left=bool(f)) for t, f in zip(turns, fire)])

def test_csgo_4090_from_files_to_the_player(tmp_path):
    (tmp_path/'cs').mkdir()
    for k in range(3): save_csgo(tmp_path/'cs'/f'hdf5_dm_july2021_{k}.hdf5', *panorama(36, k))
    data = import_videos(tmp_path/'cs', tmp_path/'d', frames=12, size='64x128', progress=False)
    clips = Clips(data, verify=True)
    assert clips.action_dim == 51 and clips.about['action_names'] == csgo_names() and clips.fps == 16

    narrow = dict(net=dict(model_channels=16, head_dim=16, num_blocks=1), codec=dict(channels=(3, 8, 16, 4), steps=2, batch=2),
                  train=dict(steps=2, batch=2, accumulate=2, length=6, compile=False, image_rate=0.))
    preset = find_preset('csgo_4090', **narrow)
    assert preset.net.channel_mult == (1, 2, 3) and preset.net.video_attn == (1, 2) and preset.codec.space_strides == (2, 4, 1)
    run = train_world(data, tmp_path/'r', preset, bar=False)
    assert run.size == (64, 128) and run.action_dim == 51 and run.about['source'] == 'Counter-Strike Deathmatch'

    player = Player(run, seed=1, steps=1)
    assert player.keys.mouse
    player.handle(dict(type='press', down=['w', 'mouse1']))
    player.handle(dict(type='mouse', move=[30, -10]))
    player.tick()
    assert player.picture.shape == (64, 128, 3) and player.picture.dtype == np.uint8
    assert np.array_equal(player.action, csgo_vector('w', (30, -10), left=True))
    player.handle(dict(type='press', down=['a']))
    player.tick()  # the mouse has come to rest; a button that was let go is up
    assert np.array_equal(player.action, csgo_vector('a', (0, 0)))
    player.handle(dict(type='mouse', move=[1e4, 0]))
    player.tick()
    assert player.action[13 + len(CSGO_X) - 1] == 1  # no faster than the fastest
    again, other = Player(run, seed=1, steps=1), Player(run, seed=1, steps=1)
    for p, turn in ((again, 30), (other, -1000)):
        p.handle(dict(type='mouse', move=[turn, 0]))
        p.tick()
    assert not np.array_equal(again.picture, other.picture)  # where the mouse goes is something the world has heard
