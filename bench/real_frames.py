"""The agent that a dreamer has to beat: the same loss and returns, in the real game, with as many real frames as the dreamer's recording has.

    python bench/real_frames.py --frames 88320 --seeds 3 --score 100 --out DIR

It is told the simulator's state, which the dreamer has to read off pictures: an advantage. Otherwise as `agents/actor_critic`: 16 games side
by side, lambda-returns, a few passes over each batch, at the recording's pace (three steps of the simulator a frame). Minutes on one core."""
import argparse, json, time
from pathlib import Path
import numpy as np
import torch
from torch import nn
from oniris.agents.actor_critic import _two_layers, actor_critic_loss, lambda_returns
from oniris.agents.score import describe_score, Played, score
from oniris.core import generator, seed_for, write_atomic
from oniris.data.environments import make_env

class Net(nn.Module):
    def __init__(self, seen, actions, width=128):
        super().__init__()
        self.actor, self.critic = _two_layers(seen, width, actions), _two_layers(seen, width, 1)
    def value(self, h): return self.critic(h)[..., 0]

class Games:
    "Games side by side, each begun anew when it is over; nobody draws them"
    def __init__(self, env_id, n, skip, seed):
        self.envs, self.skip, self.seed, self.number = [make_env(env_id) for _ in range(n)], skip, seed, 0
        self.obs = np.stack([self.begin(e) for e in self.envs])
    def begin(self, env):
        self.number += 1
        return env.reset(seed=seed_for(self.seed, self.number, 'game') % 2**31)[0]
    def step(self, actions): # -> rewards, over or out of time
        out = []
        for i, (env, a) in enumerate(zip(self.envs, actions)):
            paid, end = 0., False
            for _ in range(self.skip):
                self.obs[i], r, over, late, _ = env.step(int(a))
                paid, end = paid + r, over or late
                if end: break
            if end: self.obs[i] = self.begin(env)
            out.append((paid, end))
        return map(torch.tensor, map(np.float32, zip(*out)))

def learn(env_id, frames, seed, skip=3, n=16, length=32, gamma=.99, lam=.95, epochs=8, parts=4, lr=1e-3, say=print):
    torch.manual_seed(seed)
    games, net = Games(env_id, n, skip, seed), Net(8, 4)
    opt, batches = torch.optim.AdamW(net.parameters(), betas=(.9, .99), weight_decay=0.), frames // (n * length)
    for batch in range(batches):
        seen, said = [torch.from_numpy(games.obs.copy())], []
        for _ in range(length):
            with torch.no_grad():
                logp = net.actor(seen[-1]).log_softmax(-1)
                action = logp.exp().multinomial(1)[:, 0]
            reward, end = games.step(action.tolist())
            said.append((action, logp[range(n), action], reward / 100, end))
            seen.append(torch.from_numpy(games.obs.copy()))
        h, (action, logp, reward, end) = torch.stack(seen, 1), (torch.stack(v, 1) for v in zip(*said))
        with torch.no_grad(): value = net.value(h)
        target = lambda_returns(reward, gamma * (1 - end), value, lam)
        advantage = target - value[:, :-1]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-4)
        flat = [v.flatten(0, 1) for v in (h[:, :-1], action, logp, advantage, target, torch.ones_like(target))]
        for epoch in range(epochs):
            for mine in torch.randperm(n * length, generator=generator(seed, batch * epochs + epoch)).chunk(parts):
                loss, logs = actor_critic_loss(net, *(v[mine] for v in flat))
                for group in opt.param_groups: group['lr'] = lr * (1 - batch / batches)
                loss.backward(); nn.utils.clip_grad_norm_(net.parameters(), 1.); opt.step(); opt.zero_grad()
        if batch % 20 == 19: say(json.dumps(dict(frames=(batch + 1) * n * length, paid=float(reward.sum(1).mean() * 100), entropy=float(logs['entropy']))), flush=True)
    return net

def fly(net, env_id, episodes, seed, skip=3):
    done = []
    for e in range(episodes):
        env = make_env(env_id)
        obs, total, frames, over, late = env.reset(seed=seed_for(seed, e, 'score') % 2**31)[0], 0., 0, False, False
        while not (over or late):
            with torch.no_grad(): a = int(net.actor(torch.from_numpy(obs)[None]).argmax())
            frames, last = frames + 1, 0.
            for _ in range(skip):
                obs, r, over, late, _ = env.step(a)
                total, last = total + r, last + r
                if over or late: break
        env.close()
        done.append(Played(float(total), frames, over, float(last)))
    return done

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--env', default='LunarLander-v3'); ask.add_argument('--frames', type=int, default=88320)
    ask.add_argument('--seeds', type=int, default=3); ask.add_argument('--score', type=int, default=100); ask.add_argument('--out', type=Path, required=True)
    a, found = ask.parse_args(), {}
    torch.set_num_threads(1)
    for seed in range(a.seeds):
        began = time.process_time()
        net = learn(a.env, a.frames, seed)
        found[seed] = score(fly(net, a.env, a.score, 0)) | dict(seconds=time.process_time() - began)
        print(describe_score(f'seed {seed}', found[seed]), flush=True)
        write_atomic(a.out / 'real_frames.json', json.dumps(dict(frames=a.frames, seeds=found), indent=1).encode())

if __name__ == '__main__': main()
