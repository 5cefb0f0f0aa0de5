"Whole roads of films, tiny: import -> train -> dream -> play. Run: pytest tests/test_film_road.py"
import gymnasium, numpy as np, pytest
import oniris
from oniris.data.films import read_film
from oniris.data.videos import import_videos
from oniris.dream.rollout import oniris_dream
from oniris.frames import save_gif
from oniris.games.csgo import csgo_vector, save_csgo
from oniris.play.keys import default_keys
from oniris.recipes.train_world import oniris_train

TINY = dict(steps=2, batch=2, codecsteps=2)

def drift(n, h, w, seed=0):
    "A wall of colours that moves by."
    wall = np.random.default_rng(seed).integers(0, 255, (h // 8, (w + 2 * n) // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([wall[:, 2 * i:2 * i + w] for i in range(n)])

def test_one_long_film(tmp_path):
    film = save_gif(drift(100, 40, 40), tmp_path/'film.gif', fps=10)
    data = import_videos(film, tmp_path/'d', frames=16, size=32, fps=10, test=.2, progress=False)
    oniris_train(data=str(data), out=str(tmp_path/'r'), **TINY)
    oniris_dream(run=str(tmp_path/'r'), frames=6, out=str(tmp_path/'dream.gif'))
    assert len(read_film(tmp_path/'dream.gif', fps=10).frames) >= 6
    with pytest.raises(ValueError, match='no actions'): gymnasium.make('oniris/Dream-v0', run=str(tmp_path/'r')) # it is a video, and no game

def test_counter_strike(tmp_path):
    "From files in the published layout to a dream that keys and mouse steer."
    g = np.random.default_rng(0)
    (tmp_path/'cs').mkdir()
    for k in range(3):
        buttons = np.stack([csgo_vector('w', (30, 0), left=bool(i % 5 == 0)) for i in range(40)])
        save_csgo(tmp_path/'cs'/f'hdf5_dm_july2021_{k}.hdf5', drift(40, 150, 280, seed=k), buttons)
    data = import_videos(tmp_path/'cs', tmp_path/'d', frames=16, size='32x64', progress=False)
    oniris_train(data=str(data), out=str(tmp_path/'r'), **TINY)
    keys = default_keys(oniris.load_run(tmp_path/'r').about)
    env = gymnasium.make('oniris/Dream-v0', run=str(tmp_path/'r'))
    env.reset(seed=0)
    action = keys.vector(['w', 'mouse1'], moved=(30, 0))
    assert np.array_equal(action, csgo_vector('w', (30, 0), left=True)) and env.action_space.contains(action)
    frame, *_ = env.step(action)
    assert np.asarray(frame).shape == (32, 64, 3)
