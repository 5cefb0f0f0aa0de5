"""The same keys, dreamed and played: an agent dreams on from held-out moments, then the simulator plays what it pressed.

    python bench/same_keys.py RUN POLICY DATA... [--number 60] [--ahead 14] [--out FILE.json]

Three sums by frame: what the dream pays, what the same eyes would pay for the real pictures, and what the game pays; and the mean tilt in dream and game.
Where the first parts from the third the agent lives on a mistake, and the second says whose: the dream's, if the eyes follow the game. Two minutes on one core."""
import argparse, json
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from oniris.agents.actor_critic import ActorCritic
from oniris.core import write_atomic
from oniris.data.clips import Clips
from oniris.data.record import replay
from oniris.dream.imagine import LatentDreamer
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run
from oniris.frames import from_uint8

ANGLE = 4 # of LunarLander's state

def moments(folders, number, context): # -> (clips, i) of held-out clips that begin in the air and stay in the picture while they are shown
    found = []
    for folder in folders:
        clips = Clips(folder, 'test')
        ok = [i for i in range(len(clips)) if not clips[i]['done'][:context + 1].any() and (abs(clips[i]['states'][:context, :2]) < [.9, 1.3]).all()]
        found += [(clips, i) for i in ok[:number // len(folders)]]
    return found

def paid(head, z, actions, context): # -> what the head pays for each latent after the context, until it says that it is over (b T); the tilt (b T)
    y, _ = head(z, actions)
    going, ending, odds = (v[:, context:] for v in head.split(y))
    over = odds > 0
    before = F.pad(over.cummax(1).values[:, :-1], (1, 0))
    return torch.where(before, 0., torch.where(over, ending, going)), head.states(y)[:, context:, ANGLE]

@torch.no_grad()
def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('run'); ask.add_argument('policy'); ask.add_argument('data', nargs='+')
    ask.add_argument('--number', type=int, default=60); ask.add_argument('--ahead', type=int, default=14); ask.add_argument('--out', type=Path)
    a = ask.parse_args()
    torch.set_num_threads(1)
    run = load_run(a.run, 'cpu')
    head, policy, n = RewardHead.from_pretrained(run.path / 'reward').eval(), ActorCritic.from_pretrained(a.policy).eval(), run.context
    some = moments(a.data, a.number, n)
    frames, actions = (torch.from_numpy(np.stack([c[i][k][:n] for c, i in some])) for k in ('frames', 'actions'))
    z = run.codec.to_latents(from_uint8(frames))
    dreamer = LatentDreamer.from_run(run, action_space=None, graph=False)
    dreamer.reset(z, actions, None, 0)
    h, memory = policy.see(z, actions)
    h, seen, keys = h[:, -1:], [z], [actions]
    for _ in range(a.ahead):
        chosen, _ = policy.choose(h[:, 0])
        keys.append(F.one_hot(chosen, policy.config['actions']).float()[:, None])
        seen.append(dreamer.step(keys[-1]).to(z))
        h, memory = policy.see(seen[-1], keys[-1], memory)
    keys = torch.cat(keys, 1)
    played = [replay(c, i, np.concatenate([k.numpy(), np.tile(k[-1:].numpy(), (c.frames - len(k), 1))])) for (c, i), k in zip(some, keys)]
    real = torch.cat([run.codec.to_latents(from_uint8(torch.from_numpy(p['frames'][None, :n + a.ahead]))) for p in played])
    game, states, done = (torch.from_numpy(np.stack([p[k][n:n + a.ahead] for p in played])) for k in ('rewards', 'states', 'done'))
    dream_pays, dream_tilt = paid(head, torch.cat(seen, 1), keys, n)
    eyes_pay, _ = paid(head, real, keys, n)
    def sums(v): return [round(float(x), 1) for x in v.cumsum(1).mean(0)]
    def mean(v): return [round(float(x), 3) for x in v.abs().clamp(max=1.5).mean(0)]
    found = dict(n=len(some), dream=sums(dream_pays), eyes_on_game=sums(eyes_pay), game=sums(game), tilt_dream=mean(dream_tilt), tilt_game=mean(states[..., ANGLE]),
                 over=[round(float(done[:, -1].float().mean()), 2)])
    print(json.dumps(found))
    if a.out: write_atomic(a.out, json.dumps(found, indent=1).encode())

if __name__ == '__main__': main()
