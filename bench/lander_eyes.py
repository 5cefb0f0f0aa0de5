"""What are the eyes worth? The simulator's own heuristic flies by the state that a reward head reads off the latents, and lands, or not.

    python bench/lander_eyes.py --head DIR [--run lander] [--episodes 100] [--out FILE]

An upper bound for any agent that looks through these eyes, and a lower one: no dream has any part in it."""
import argparse, json
from pathlib import Path
import torch
import torch.nn.functional as F
from gymnasium.envs.box2d.lunar_lander import heuristic
from oniris.agents.score import describe_score, play_game, play_known, score
from oniris.core import write_atomic
from oniris.data.environments import make_env
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run
from oniris.frames import from_uint8

class ByEye:
    "A pilot for `play_game`: the heuristic, told what the head makes of the pictures"
    def __init__(self, run, head): self.run, self.head, self.env = run, head, make_env(run.about['env_id'])
    def begin(self, games): self.memory, self.cache = self.head.new_memory(games), self.run.codec.new_cache()

    @torch.no_grad()
    def __call__(self, pictures, actions):
        z = self.run.codec.to_latents(from_uint8(pictures), self.cache).float()
        y, self.memory = self.head(z, actions.flatten(1)[:, None], self.memory)
        states = self.head.states(y)[:, 0].clone()
        states[:, 6:] = (states[:, 6:] > .5).float()
        return F.one_hot(torch.tensor([heuristic(self.env, s) for s in states.tolist()]), 4).float()

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--run', default='lander'); ask.add_argument('--head', required=True); ask.add_argument('--episodes', type=int, default=100)
    ask.add_argument('--seed', type=int, default=0); ask.add_argument('--out', type=Path)
    a = ask.parse_args()
    torch.set_num_threads(1)
    run = load_run(a.run, 'cpu')
    found = dict(by_eye=score(play_game(run, ByEye(run, RewardHead.from_pretrained(a.head)), a.episodes, a.seed)),
                 told=score(play_known(run, 'heuristic', a.episodes, a.seed)))
    for name, said in found.items(): print(describe_score(name, said), flush=True)
    if a.out: write_atomic(a.out, json.dumps(found, indent=1).encode())

if __name__ == '__main__': main()
