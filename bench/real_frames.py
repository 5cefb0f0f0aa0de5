"""The agent that a dreamer has to beat: the same loss and returns, in the real game, with as many real frames as the dreamer's recordings have.

    python bench/real_frames.py --frames 88320 --seeds 3 --score 100 --out DIR [--head DIR]

With --head it sees what the dreamer sees: pictures, through the codec and the eyes of that reward head, which did learn from the dreamer's
recordings, an advantage. Without, it is told the simulator's state, a larger one. Otherwise as `agents/actor_critic`: 16 games side by side,
lambda-returns, a few passes over each batch, at the recording's pace (three steps of the simulator a frame). Minutes on one core."""
import argparse, json, time
from contextlib import closing
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from oniris.agents.actor_critic import _two_layers, actor_critic_loss, lambda_returns
from oniris.agents.score import describe_score, Played, score
from oniris.core import generator, seed_for, write_atomic
from oniris.data.environments import make_env, shrink
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run
from oniris.frames import from_uint8

class Net(nn.Module):
    def __init__(self, seen, actions, width=128):
        super().__init__()
        self.actor, self.critic = (_two_layers(seen, width, n, norm=False) for n in (actions, 1))
    def value(self, h): return self.critic(h)[..., 0]

class Told:
    "What the simulator says"
    def begin(self, games): pass
    def forget(self, i): pass
    def __call__(self, envs, obs, actions): return torch.from_numpy(np.stack(obs)).clone()

class Seen:
    "What a head's eyes say of the pictures, encoded one by one"
    def __init__(self, run, head): self.run, self.head = run, head
    def begin(self, games): self.memory = self.head.new_memory(games)
    def forget(self, i): self.memory[i] = 0
    @torch.no_grad()
    def __call__(self, envs, obs, actions): # actions (n a): that led here; zeros at a beginning
        pictures = torch.from_numpy(np.stack([shrink(env.render(), self.run.size) for env in envs]))
        z = self.run.codec.to_latents(from_uint8(pictures[:, None])).float()
        hidden, self.memory = self.head.hidden(z, actions[:, None], self.memory)
        return self.head.told(hidden)[:, 0]

class Games:
    "Games side by side, each begun anew when it is over"
    def __init__(self, env_id, n, skip, seed, look):
        self.envs, self.skip, self.seed, self.number, self.look = [make_env(env_id) for _ in range(n)], skip, seed, 0, look
        look.begin(n)
        self.obs = [self.begin(env) for env in self.envs]
        self.seen = look(self.envs, self.obs, torch.zeros(n, 4))
    def begin(self, env):
        self.number += 1
        return env.reset(seed=seed_for(self.seed, self.number, 'game') % 2**31)[0]
    def step(self, actions): # numbers -> rewards, over or out of time
        out, vectors = [], F.one_hot(torch.tensor(actions), 4).float()
        for i, (env, a) in enumerate(zip(self.envs, actions)):
            paid, end = 0., False
            for _ in range(self.skip):
                self.obs[i], r, over, late, _ = env.step(a)
                paid, end = paid + r, over or late
                if end: break
            if end:
                self.obs[i], vectors[i] = self.begin(env), 0
                self.look.forget(i)
            out.append((paid, end))
        self.seen = self.look(self.envs, self.obs, vectors)
        return map(torch.tensor, map(np.float32, zip(*out)))

def learn(env_id, frames, seed, look, skip=3, n=16, length=32, gamma=.99, lam=.95, epochs=8, parts=4, lr=1e-3, say=print):
    torch.manual_seed(seed)
    games, net = Games(env_id, n, skip, seed, look), Net(8, 4)
    opt, batches = torch.optim.AdamW(net.parameters(), betas=(.9, .99), weight_decay=0.), frames // (n * length)
    for batch in range(batches):
        seen, said = [games.seen], []
        for _ in range(length):
            with torch.no_grad():
                logp = net.actor(seen[-1]).log_softmax(-1)
                action = logp.exp().multinomial(1)[:, 0]
            reward, end = games.step(action.tolist())
            said.append((action, logp[range(n), action], reward / 100, end))
            seen.append(games.seen)
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

def fly(net, env_id, episodes, seed, look, skip=3):
    done = []
    for e in range(episodes):
        with closing(make_env(env_id)) as env:
            look.begin(1)
            obs, total, frames, over, late, a = env.reset(seed=seed_for(seed, e, 'score') % 2**31)[0], 0., 0, False, False, torch.zeros(1, 4)
            while not (over or late):
                with torch.no_grad(): action = int(net.actor(look([env], [obs], a)).argmax())
                a, frames, last = F.one_hot(torch.tensor([action]), 4).float(), frames + 1, 0.
                for _ in range(skip):
                    obs, r, over, late, _ = env.step(action)
                    total, last = total + r, last + r
                    if over or late: break
        done.append(Played(float(total), frames, over, float(last)))
    return done

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--env', default='LunarLander-v3'); ask.add_argument('--frames', type=int, default=88320)
    ask.add_argument('--seeds', type=int, default=3); ask.add_argument('--score', type=int, default=100); ask.add_argument('--out', type=Path, required=True)
    ask.add_argument('--head', default='', help='a reward head whose eyes are looked through'); ask.add_argument('--run', default='lander', help='whose codec')
    a, found = ask.parse_args(), {}
    torch.set_num_threads(1)
    look = Seen(load_run(a.run, 'cpu'), RewardHead.from_pretrained(a.head)) if a.head else Told()
    for seed in range(a.seeds):
        began = time.process_time()
        net = learn(a.env, a.frames, seed, look)
        found[seed] = score(fly(net, a.env, a.score, 0, look)) | dict(seconds=time.process_time() - began)
        print(describe_score(f'seed {seed}', found[seed]), flush=True)
        write_atomic(a.out / 'real_frames.json', json.dumps(dict(frames=a.frames, through_eyes=bool(a.head), seeds=found), indent=1).encode())

if __name__ == '__main__': main()
