"CarRacing for a world model: no zoom at the start, no pictures that nobody looks at, and a driver that follows the road, mostly."
import gymnasium as gym
import numpy as np

NOTHING, RIGHT, LEFT, GAS, BRAKE = range(5)

class Settled(gym.Wrapper):
    "Begins where the camera has come down (a second's flight), and draws when asked, not at every step for an observation."
    def __init__(self, env):
        super().__init__(env)
        draw, nothing = self.unwrapped._render, np.zeros((96, 96, 3), np.uint8)
        self.unwrapped._render = lambda mode: nothing if mode == 'state_pixels' else draw(mode)
    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.unwrapped.t = 1.
        return observation, info

def along_the_road(car, track):
    "The key of a driver that looks eight tiles ahead."
    (x, y), angle = car.hull.position, car.hull.angle
    points = np.array([t[2:] for t in track])
    ahead = points[(np.hypot(*(points - (x, y)).T).argmin() + 8) % len(points)] - (x, y)
    forward, right = np.array([-np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
    off = np.arctan2(ahead @ right, ahead @ forward)
    speed = np.hypot(*car.hull.linearVelocity)
    if abs(off) > .12: return RIGHT if off > 0 else LEFT
    return GAS if speed < 40 else NOTHING

class Driver:
    "Follows the road for a while, then holds any key for a while, and so on: an episode shows both."
    def __init__(self): self.left, self.follows, self.key = 0, False, NOTHING
    def __call__(self, env, observation, rng):
        if self.left == 0:
            self.follows = not self.follows
            self.left = int(rng.integers(12, 36) if self.follows else rng.integers(3, 10))
            self.key = int(rng.integers(5))
        self.left -= 1
        return along_the_road(env.unwrapped.car, env.unwrapped.track) if self.follows else self.key
