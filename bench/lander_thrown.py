"""LunarLander from the middle of a fall: every episode begins at a place, a tilt and speeds that no pilot would have brought about.

    oniris_record --wrap bench.lander_thrown:thrown --policy random+held+heuristic --size 64 --skip 3 --tail 20 --after .5 --clips 800 --out DATA

Eyes that shall know a tilt when they see one have to have seen some."""
import gymnasium as gym
import numpy as np
from gymnasium.envs.box2d.lunar_lander import heuristic

class Thrown(gym.Wrapper):
    "After a reset the lander and its legs are moved, turned and pushed as one"
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.throw(self.unwrapped.np_random)
        obs, _, _, _, info = self.env.step(0)
        return obs, info

    def throw(self, rng):
        game = self.unwrapped
        x = rng.uniform(-.8, .8)
        low = .15 if abs(x) < .15 else .6 # hills end below .5, and between the flags it is flat
        y, tilt, spin = rng.uniform(low, 1.3), np.clip(rng.normal(0, .5), -1.4, 1.4), rng.normal(0, 1.2)
        speed = np.array([rng.normal(0, 2), rng.uniform(-6, 1.5)])
        centre = np.array(game.lander.position)
        shift = np.array([10 * x, 20 / 3 * y]) - (centre - [10, game.helipad_y + 18 / 30])
        tilt -= game.lander.angle # by how much it turns
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        for body in (game.lander, *game.legs):
            arm = turn @ (np.array(body.position) - centre)
            body.position, body.angle = (centre + shift + arm).tolist(), body.angle + float(tilt)
            body.linearVelocity, body.angularVelocity = (speed + spin * np.array([-arm[1], arm[0]])).tolist(), float(spin)

def thrown(env): return Thrown(env)

class Begins:
    "A policy that looks on for some frames, then flies, or holds keys: beginnings, in which a lander leaves the picture by its upper edge"
    def __init__(self): self.frame = 0
    def __call__(self, env, obs, rng):
        if not self.frame: self.rest, self.kind, self.key, self.left = rng.integers(13), rng.integers(3), 0, 0
        self.frame += 1
        if self.frame <= self.rest: return 0
        if self.kind == 0: return heuristic(env.unwrapped, obs)
        if not self.left: self.key, self.left = int(rng.integers(4)), int(rng.integers(1, 9))
        self.left -= 1
        return heuristic(env.unwrapped, obs) if self.kind == 1 and self.frame > self.rest + 8 else self.key
