"""Does a better player score better in the dream, and up to which horizon? Some players, each in a run's dreams and in the game, from the same held-out moments.

    python bench/better_player.py RUN OUT.json --data DATA... --policies NAME=DIR... [--number 48] [--ahead 64]

Every player sees pictures only, through the run's codec and its own eyes (the game's heuristic: through the head's). OUT has, of each player and moment, what dream and
game have paid after every frame. Six minutes on one core for six players."""
import argparse, json, time
from contextlib import closing
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.envs.box2d.lunar_lander import heuristic
from oniris.agents.actor_critic import ActorCritic
from oniris.core import write_atomic
from oniris.data.environments import env_from
from oniris.data.record import play
from oniris.dream.imagine import LatentDreamer
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run
from oniris.frames import from_uint8
from same_keys import moments

KEYS = 4

class Learned:
    "An `ActorCritic`, which takes the likeliest action"
    def __init__(self, folder): self.policy = ActorCritic.from_pretrained(folder).eval()
    def begin(self, z, actions): # real latents (b n c h w) and what led to them -> actions (b a)
        h, self.memory = self.policy.see(z, actions)
        return self.choose(h)
    def choose(self, h): return F.one_hot(self.policy.choose(h[:, -1])[0], KEYS).float()
    def __call__(self, z, actions): # one latent (b 1 c h w), (b 1 a)
        h, self.memory = self.policy.see(z, actions, self.memory)
        return self.choose(h)

class Heuristic:
    "The game's own, told what the head's eyes say"
    def __init__(self, head, env): self.head, self.env = head, env
    def begin(self, z, actions): return self(z, actions, None)
    def __call__(self, z, actions, memory=0):
        y, self.memory = self.head(z, actions, self.memory if memory == 0 else None)
        told = self.head.states(y)[:, -1].numpy()
        return F.one_hot(torch.tensor([heuristic(self.env.unwrapped, s) for s in told]), KEYS).float()

class Fixed:
    "One key, or any: `key` None"
    def __init__(self, key): self.key = key
    def begin(self, z, actions):
        self.rng = torch.Generator().manual_seed(0)
        return self(z, actions)
    def __call__(self, z, actions):
        keys = torch.full((len(z),), self.key) if self.key is not None else torch.randint(KEYS, (len(z),), generator=self.rng)
        return F.one_hot(keys, KEYS).float()

def dreamed(run, head, player, z, actions, ahead): # -> (b ahead): what the head pays until it says that it is over
    dreamer = LatentDreamer.from_run(run, action_space=None, graph=False)
    dreamer.reset(z, actions, None, 0)
    _, memory = head(z, actions)
    action, over, paid = player.begin(z, actions), torch.zeros(len(z), dtype=torch.bool), []
    for _ in range(ahead):
        new = dreamer.step(action[:, None]).to(z)
        r, ends, memory = head.predict(new, action[:, None], memory)
        paid.append(torch.where(over, 0., r[:, 0]))
        over |= ends[:, 0]
        action = player(new, action[:, None])
    return torch.stack(paid, 1)

class Game:
    "The simulator from a recorded moment on: its recorded actions up to there, then whatever `action` says"
    def __init__(self, clips, i, context):
        self.env = env_from(clips.about)
        told = np.concatenate([clips.past(i), clips[i]['actions'][:context]])
        self.items = play(self.env, int(clips.seed[i]), lambda k, obs: told[k] if k < len(told) else self.action, clips.size, clips.about['skip'])
        for _ in range(len(told)): self.picture = next(self.items)[0]
        self.over = False
    def step(self, action): # -> what is paid
        self.action = action
        item = None if self.over else next(self.items, None)
        if item is None: return 0.
        self.picture, _, _, reward, self.over = item
        return float(reward)

def played(run, player, some, z, actions, ahead): # -> (b ahead)
    games = [Game(clips, i, run.context) for clips, i in some]
    action, paid = player.begin(z, actions), []
    for _ in range(ahead):
        paid.append([g.step(a.numpy()) for g, a in zip(games, action)])
        pictures = torch.from_numpy(np.stack([g.picture for g in games]))
        action = player(run.codec.to_latents(from_uint8(pictures[:, None])).to(z), action[:, None])
    for g in games: g.env.close()
    return torch.tensor(paid).T

@torch.no_grad()
def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('run'); ask.add_argument('out', type=Path); ask.add_argument('--data', nargs='+', required=True)
    ask.add_argument('--policies', nargs='*', default=[]); ask.add_argument('--number', type=int, default=48); ask.add_argument('--ahead', type=int, default=64)
    a = ask.parse_args()
    torch.set_num_threads(1)
    run = load_run(a.run, 'cpu')
    head, n = RewardHead.from_pretrained(run.path / 'reward').eval(), run.context
    some = moments(a.data, a.number, n)
    frames, actions = (torch.from_numpy(np.stack([c[i][k][:n] for c, i in some])) for k in ('frames', 'actions'))
    z = run.codec.to_latents(from_uint8(frames))
    at = [h for h in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64) if h <= a.ahead]
    found = dict(run=str(a.run), moments=len(some), horizons=at, players={})
    with closing(env_from(some[0][0].about)) as env:
        players = dict(random=Fixed(None), idle=Fixed(0)) | {k: Learned(v) for k, v in (p.split('=') for p in a.policies)} | {'heuristic, by eye': Heuristic(head, env)}
        for name, player in players.items():
            began = time.monotonic()
            both = {k: v.cumsum(1) for k, v in (('dream', dreamed(run, head, player, z, actions, a.ahead)), ('game', played(run, player, some, z, actions, a.ahead)))}
            found['players'][name] = {k: [[round(float(x), 1) for x in row[[h - 1 for h in at]]] for row in v] for k, v in both.items()}
            print(f'{name}: after 8 / 16 / {a.ahead} frames the dream has paid', *(f"{both['dream'][:, h - 1].mean():.0f}" for h in (8, 16, a.ahead)),
                  'and the game', *(f"{both['game'][:, h - 1].mean():.0f}" for h in (8, 16, a.ahead)), f'({time.monotonic() - began:.0f} s)', flush=True)
            write_atomic(a.out, json.dumps(found).encode())

if __name__ == '__main__': main()
