"""A world that keeps a tilt, the head that reads its dreams, and an agent that learned in them, on one GPU in six minutes:

    python -c "from bench.tilted import *; pack(Path('BUNDLE'), 'oniris/assets/lander/reward', FLOWN, THROWN, BEGINNINGS)"
    python bench/tilted.py BUNDLE OUT [--world 150] [--given WORLD.safetensors] [--agent 120] [--rehearse]

BUNDLE holds train.npz and test.npz (clips of frames, actions, states, rewards, done, and `kind`: 0 flown, 1 thrown in at any tilt, 2 beginnings) and
`head`, whose eyes are kept. The shipped world loses a quarter of a tilt with every dreamed frame, for no recorded pilot tilted much and a
lander is .25% of a picture: here it learns on thrown landers, with weight on the lander. OUT gets world, reward, policy and log.json."""
import argparse, json, math, sys, tempfile, time, warnings
from pathlib import Path
from unittest import mock

try: import gymnasium # noqa
except ImportError: # nobody plays on a lent card; a dataset only has to know how wide its numbered actions are
    class Discrete:
        def __init__(self, n, start=0, **more): self.n, self.start = n, start
    fake = mock.MagicMock()
    fake.spaces.Discrete, fake.spaces.flatdim = Discrete, lambda space: space.n
    sys.modules |= {'gymnasium': fake, 'gymnasium.spaces': fake.spaces, 'gymnasium.envs': fake.envs, 'gymnasium.envs.registration': fake.envs.registration}
try: import h5py # noqa
except ImportError: sys.modules['h5py'] = mock.MagicMock() # nor is a dataset read there
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from oniris.agents.actor_critic import Learning, train_agent
from oniris.core import generator
from oniris.dream.imagine import LatentDreamer
from oniris.dream.reward import reward_error, RewardHead, errors_by_horizon
from oniris.dream.reward import _huber, _mean_where, _phases
from oniris.dream.run import load_run
from oniris.dream.train_reward import _mirrored, joined, Rewarded
from oniris.frames import from_uint8
from oniris.games.lander import lander_on_screen
from oniris.nn import attention
from oniris.nn.mp import normalize_weights_
from oniris.recipes.objective import predicted_past
from oniris.training.ema import PowerEMA
from oniris.training.loss import motion_weight, TwoCopyLoss

BEGAN, LOG = time.monotonic(), []
def say(**what):
    LOG.append(dict(at=round(time.monotonic() - BEGAN, 1)) | what)
    print(json.dumps(LOG[-1]), flush=True)

def read(path, run, at, mirror, every=1): # -> Rewarded on the device, kinds
    with np.load(path) as f: raw = {k: f[k][::every] for k in f}
    def encoded(x): return torch.cat([run.codec.to_latents(from_uint8(torch.from_numpy(v).to(at))).half() for v in np.array_split(x, -(-len(x) // 32))])
    rest = [torch.from_numpy(raw[k]).to(at) for k in ('actions', 'rewards', 'done', 'states')]
    parts = [Rewarded(encoded(raw['frames']), rest[0], rest[1].float(), rest[2], rest[3].float())]
    if mirror: parts.append(Rewarded(encoded(raw['frames'][:, :, :, ::-1].copy()), rest[0][..., [0, 3, 2, 1]], rest[1].float(), rest[2], _mirrored(rest[3].float().cpu(), 'LunarLander-v3').to(at)))
    return joined(parts), torch.from_numpy(raw['kind']).repeat(len(parts)).to(at)

def pack(bundle, head, *datasets): # where the datasets are: what is to be carried to the card
    from oniris.data.clips import Clips
    for split in ('train', 'test'):
        parts = [[clip for clip in Clips(d, split)] for d in datasets]
        fields = {k: np.stack([c[k] for part in parts for c in part]) for k in ('frames', 'actions', 'states', 'rewards', 'done')}
        np.savez_compressed(bundle / f'{split}.npz', kind=np.repeat(range(len(parts)), [len(p) for p in parts]), **fields)
    RewardHead.from_pretrained(head).save_pretrained(bundle / 'head', half=True)

def near_lander(states, size=16, reach=2.5): # (b t 8) -> (b t 1 h w): 1 where it is
    x, y = (lander_on_screen(states) * size).unbind(-1)
    at = torch.arange(size, device=states.device) + .5
    away = (at[None, None, None] - x[..., None, None]).square() + (at[None, None, :, None] - y[..., None, None]).square()
    return (away < reach ** 2).float()[:, :, None]

def train_world(run, data, kind, seconds, batch, length, lr, at, share=(.3, .5, .2), gain=8., own=.4):
    world = run.denoiser.train().requires_grad_(True)
    normalize_weights_(world)
    loss_fn, far, ema = TwoCopyLoss((.8, 2.5), 1.2, .3), TwoCopyLoss(1.5, .7, .3, fit=False), PowerEMA(world)
    opt = torch.optim.Adam(world.parameters(), betas=(.9, .99))
    groups, last = [(kind == k).nonzero()[:, 0] for k in range(3)], (~data.done).sum(1)
    begin, step, losses = time.monotonic(), 0, []
    while (used := (time.monotonic() - begin) / seconds) < 1:
        g = generator(21, step, 'tilted')
        which = torch.multinomial(torch.tensor(share), batch, True, generator=g)
        i = torch.stack([groups[k][int(torch.rand((), generator=g) * len(groups[k]))] for k in which.tolist()])
        most = (last[i] - length + 4).clamp(0, data.z.shape[1] - length)
        first = (torch.rand(batch, generator=g).to(at) * (most + 1)).long()
        t = first[:, None] + torch.arange(length, device=at)
        x, a, s = data.z[i[:, None], t].float(), data.actions[i[:, None], t], data.states[i[:, None], t]
        with torch.autocast(at, torch.bfloat16):
            rows = torch.rand(batch, generator=g) < own
            past = predicted_past(world, far, x, dict(actions=a), [generator(21, step, 'own')], run.codec.project, rows=rows) if rows.any() else x
            loss, logs = loss_fn(world, x, a, None, generator=generator(21, step, 'loss'), past=past, weight=motion_weight(past) + gain * near_lander(s))
        for group in opt.param_groups: group['lr'] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * used)) / 2
        loss.backward()
        if all(p.grad is None or p.grad.isfinite().all() for p in world.parameters()):
            opt.step()
            normalize_weights_(world)
        opt.zero_grad()
        step += 1
        ema.update(step)
        losses.append(float(loss.detach()))
        if step % 100 == 0: say(world=step, loss=float(np.mean(losses[-100:])))
    say(world=step, loss=float(np.mean(losses[-100:])))
    ema.copy_to(world, 0)
    run.denoiser = world.eval().requires_grad_(False)

@torch.no_grad()
def dream(run, d, context=8, ahead=12, width=1024, seed=0): # windows of clips, dreamed under their own keys
    dreamer, out = LatentDreamer.from_run(run, action_space=None, graph=False), []
    for k, some in enumerate(torch.arange(len(d)).split(width)):
        first = torch.randint(d.z.shape[1] - context - ahead + 1, (len(some),), generator=generator(seed, k, 'window'))
        (z, a, r, done, s), _ = d.take(some, first, context + ahead)
        dreamer.reset(z[:, :context], a[:, :context], None, seed + k)
        out.append(Rewarded(torch.cat([z[:, :context], dreamer.rollout(a[:, context:]).to(z)], 1).half(), a, r, done, s))
    return joined(out)

@torch.no_grad()
def looks_of(head, d, noise, seed): # (n t f): what each latent looks like, some under noise
    out = []
    for k in range(0, len(d), 64):
        z, g = d.z[k:k + 64].float(), torch.Generator(d.z.device).manual_seed(seed + k)
        sigma = noise * torch.rand(len(z), 1, 1, 1, 1, generator=g, device=z.device) * (torch.rand(len(z), 1, 1, 1, 1, generator=g, device=z.device) < .6)
        out.append(head.looks(z + sigma * torch.randn(z.shape, generator=g, device=z.device), d.actions[k:k + 64]))
    return torch.cat(out)

def train_time(head, real, dreams, steps, batch=64, lr=2e-3, share=.4): # all but the eyes
    head.requires_grad_(True)
    head.look.requires_grad_(False)
    given = [(d, looks_of(head, d, noise, 3), head.unit_states(d.states).clamp(-6, 6)) for d, noise in ((real, .3), (dreams, .1))]
    params = [p for p in head.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, betas=(.9, .99), weight_decay=.1)
    for step in range(steps):
        g = generator(1, step, 'time')
        d, looks, states = given[int(torch.rand((), generator=g) < share)]
        w = torch.randint(len(d), (batch,), generator=g).to(looks.device)
        y = head.read(head.recall(looks[w])[0])
        rewards, done = d.rewards[w], d.done[w]
        going, ends = _phases(done)
        at_end, known = (rewards * ends).sum(1, keepdim=True), ends.any(1, keepdim=True) & done
        loss = (_mean_where(_huber(y[..., 0] - rewards / head.scale), going) + _mean_where(_huber(y[..., 1] - at_end / head.end_scale), known)
                + F.binary_cross_entropy_with_logits(y[..., 2], done.to(y)) + 4 * _huber(y[..., 3:] - states[w], 2.).mean())
        for group in opt.param_groups: group['lr'] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.)
        opt.step()
        opt.zero_grad()
    say(head=steps, loss=float(loss.detach()))

@torch.no_grad()
def tilts(run, head, held, name): # how much of a tilt is left in dreams
    s = held.states[:, 7:18]
    ok = ~held.done[:, :18].any(1) & (s[..., 0].abs() < .9).all(1) & (s[..., 1] < 1.3).all(1) & (s[..., 4].abs().amax(1) > .15)
    z, a, true = held.z[ok].float(), held.actions[ok], held.states[ok][:, 7:18, 4]
    dreamer = LatentDreamer.from_run(run, action_space=None, graph=False)
    dreamer.reset(z[:, :8], a[:, :8], None, 0)
    dreamed = torch.cat([z[:, :8], dreamer.rollout(a[:, 8:18]).to(z)], 1)
    def slope(z): # each frame's tilt by the last looks
        seen = head.states(head(z, a[:, :18])[0])[:, 7:18, 4]
        return [round(float(v), 3) for v in (seen * true).sum(0) / true.square().sum(0)]
    apart = (dreamed - z[:, :18]).square() * near_lander(held.states[ok][:, :18])
    say(tilts=name, n=int(ok.sum()), dreamed=slope(dreamed), real=slope(z[:, :18]), near_mse=[round(float(v), 2) for v in apart.sum((2, 3, 4)).mean(0)[8:]])

def errors_of(run, head, held, kind):
    found = {n: reward_error(head, *(v[kind == k] for v in (held.z, held.actions, held.rewards, held.done, held.states))) for k, n in enumerate(('flown', 'thrown', 'begins'))}
    d = dream(run, held, ahead=24)
    return found | dict(dreamed=errors_by_horizon(head, d.z, d.actions, d.rewards, d.done, 8))

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('bundle', type=Path); ask.add_argument('out', type=Path); ask.add_argument('--world', type=float, default=150., help='seconds; 0: as it is')
    ask.add_argument('--given', help='weights of a world to begin with'); ask.add_argument('--headsteps', type=int, default=6000)
    ask.add_argument('--agent', type=float, default=120.); ask.add_argument('--horizon', type=int, default=14); ask.add_argument('--rehearse', action='store_true')
    a = ask.parse_args()
    at, small = 'cuda' if torch.cuda.is_available() else 'cpu', a.rehearse
    torch.set_num_threads(1 if at == 'cpu' else 4)
    with mock.patch.object(attention, 'attend_flex', attention.attend_grouped): # flex takes half a minute to compile
        run = load_run('lander', at)
        with torch.no_grad(): (real, kind), (held, sort) = (read(a.bundle / f'{n}.npz', run, at, n == 'train', 9 if small else 1) for n in (('test',) * 2 if small else ('train', 'test')))
        head = RewardHead.from_pretrained(a.bundle / 'head').to(at)
        say(device=at, clips=len(real), held=len(held))
        tilts(run, head, held, 'shipped world')
        if a.given:
            run.denoiser.load_state_dict({k: v.float() for k, v in load_file(a.given).items()})
            tilts(run, head, held, 'given world')
        if a.world:
            train_world(run, real, kind, a.world, 2 if small else 48, 8 if small else 16, 6e-3, at)
            run.denoiser.save_pretrained(a.out / 'world', half=True)
            tilts(run, head, held, 'trained world')
        train_time(head, real, dream(run, real), 4 if small else a.headsteps)
        head.eval().requires_grad_(False).save_pretrained(a.out / 'reward')
        tilts(run, head, held, 'new head')
        say(errors=errors_of(run, head, held, sort))
        (a.out / 'log.json').write_text(json.dumps(LOG))
        far = (real.states[..., 0].abs() > .95) | (real.states[..., 1] > 1.6)
        starts = Rewarded(real.z, real.actions, real.rewards, real.done | far, real.states) # dreams begin where something is in sight
        known, saved = [], [time.monotonic()]
        def watch(step, logs):
            if time.monotonic() - saved[0] > 15:
                known[0].save_pretrained(a.out / 'policy')
                saved[0] = time.monotonic()
            if 'paid' in logs and (small or step % (how.steps * 5) < 2): say(agent=step, **{k: round(float(logs[k]), 3) for k in ('paid', 'value', 'ended', 'ended_well', 'explained', 'entropy')})
        how = Learning(dreams=4, horizon=3, epochs=1, parts=2) if small else Learning(dreams=2048, horizon=a.horizon, epochs=4, parts=8)
        policy = train_agent(run, starts, Path(tempfile.mkdtemp()), 4 if small else 10**6, head=head, how=how, minutes=a.agent / 60, watch=watch, bar=False, began=known.append,
                             every=10**6, dreamer=dict(graph=False))
        policy.save_pretrained(a.out / 'policy')
        (a.out / 'log.json').write_text(json.dumps(LOG))
        say(done=True)

if __name__ == '__main__':
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        main()
