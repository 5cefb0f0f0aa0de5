"""LunarLander flights to be asked about while they fly: real frames, the keys that were played, and what the simulator says of each frame.

Picked as in the exam of DESIGN.md, section 12: a flight is a fair question if its lander is in the air and in view from the last frame shown on,
for `FLIES` frames, and the game is not over before. Each begins in mid-air, at a frame of its episode between 0 and `LATEST`.
"""
from contextlib import closing
from itertools import islice
from pathlib import Path
import numpy as np
import torch
from oniris.core import seed_for
from oniris.data.environments import make_env
from oniris.data.policies import own_heuristic
from oniris.data.record import play
from oniris.data.spaces import action_vector
from oniris.frames import from_uint8
from oniris.games.lander import NONE, REAL, lander_position, lander_status, seen

CONTEXT, FLIES, LATEST, SKIP = 8, 32, 24, 3
ENV = 'LunarLander-v3'

def fair(i, first, state, done):
    "May a flight that comes to this at frame `i` of its episode be asked for, if its context begins at frame `first`?"
    x, y = state[:2]
    asked = first + CONTEXT - 1 <= i < first + CONTEXT + FLIES
    landed = state[6] and state[7]
    return not (asked and (landed or done or abs(x) > .95 or not -.4 < y < 1.33))

def prepare(e):
    "Environment, seed, policy and first frame of episode `e`"
    env, seed = make_env(ENV), seed_for(77, e, 'regimes') % 2**31
    rng = np.random.default_rng(seed_for(77, e, 'regimes first'))
    heuristic = own_heuristic(env)
    return env, seed, lambda obs: heuristic(env, obs), int(rng.integers(LATEST + 1))

def promising(e):
    "Episode `e` played without the camera, which is quicker; with it the physics differ by very little"
    env, seed, choose, first = prepare(e)
    with closing(env):
        obs, done = env.reset(seed=seed)[0], False
        for i in range(first + CONTEXT + FLIES):
            if not fair(i, first, obs, done): return False
            action = choose(obs)
            for _ in range(SKIP):
                obs, _, end, _, _ = env.step(action)
                done |= end
                if end: break
    return True

def flight(e, size):
    "Frames, actions and status of episode `e` from its first frame on; None if it is no fair question"
    if not promising(e): return None
    env, seed, choose, first = prepare(e)
    act, out = (lambda i, obs: action_vector(env.action_space, choose(obs))), []
    with closing(env):
        for i, (frame, action, state, _, done) in enumerate(islice(play(env, seed, act, size, SKIP), first + CONTEXT + FLIES)):
            if not fair(i, first, state, done): return None
            out.append((frame, action, int(lander_status(state, done))))
    one = [np.stack(v) for v in zip(*out[first:])]
    in_view = seen(lander_position(from_uint8(one[0][CONTEXT - 1:]))[1], REAL).all()
    return one if len(one[0]) == CONTEXT + FLIES and in_view else None

def collected(path, fields, make, number, what):
    "The first `number` of make(0), make(1), ... that are not None, as tensors by name; from `path`, where they are written when they are first asked for"
    if not path.exists():
        found, e = [], 0
        while len(found) < number:
            if (one := make(e)) is not None: found.append(one)
            e += 1
        print(f'{number} of {e} {what}', flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **dict(zip(fields, (np.stack(v) for v in zip(*found)))))
    with np.load(path) as z: return {k: torch.from_numpy(z[k]) for k in z.files}

def flights(number, size=32, folder='runs/regimes'):
    "frames uint8 (b t h w 3), actions (b t a), status (b t), episodes (b): recorded once"
    def make(e): return None if (one := flight(e, size)) is None else (*one, e)
    fields, what = ('frames', 'actions', 'status', 'episodes'), f'episodes are in the air and in view for {FLIES} frames after {CONTEXT}'
    return collected(Path(folder) / f'flights-{size}-{number}.npz', fields, make, number, what)

# ---- landers that leave the picture above, and come back: is there a dreamed one where there is none?
def up_and_back(env, heuristic):
    "A player: down to three quarters of the height, up with the main engine until out of sight, and back"
    stage = 0
    def choose(obs):
        nonlocal stage
        y, angle = obs[1], obs[4]
        stage = max(stage, 1 if y < 1.1 else 0)
        if stage == 1 and y > 1.36: stage = 2
        if stage == 0: return heuristic(env, obs)
        if stage == 2: return 0
        return 2 if abs(angle) < .15 else 3 if angle > 0 else 1
    return choose

def departure(e, size, gone=6, ahead=24):
    "Frames and actions of episode `e` from ten frames before the lander is gone; None if it is not gone for `gone` frames of `ahead`"
    env = make_env(ENV)
    choose, out = up_and_back(env, own_heuristic(env)), []
    with closing(env):
        act = lambda i, obs: action_vector(env.action_space, choose(obs))
        for frame, action, _, _, done in islice(play(env, seed_for(78, e, 'regimes') % 2**31, act, size, SKIP), 96):
            if done: break
            out.append((frame, action))
    frames, actions = (np.stack(v) for v in zip(*out))
    score = lander_position(from_uint8(frames))[1].numpy()
    came = int((score > REAL).argmax()) # it begins half out of sight
    first = came + int((score[came:] < NONE).argmax()) - CONTEXT - 2
    part = slice(first, first + CONTEXT + ahead)
    if first < 0 or len(frames) < part.stop or score[first + CONTEXT - 1] < REAL: return None
    return (frames[part], actions[part]) if (score[part][CONTEXT:] < NONE).sum() >= gone else None

def departures(number, size=32, folder='runs/regimes'):
    "frames uint8 (b t h w 3), actions (b t a): recorded once"
    path = Path(folder) / f'departures-{size}-{number}.npz'
    return collected(path, ('frames', 'actions'), lambda e: departure(e, size), number, 'landers leave the picture')

if __name__ == '__main__': print({k: tuple(v.shape) for k, v in flights(48).items()})
