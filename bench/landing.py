"""An agent that learns to land in dreams, on one GPU with some processors beside it: the world, its reward head and the agent, in turns.

    python bench/landing.py BUNDLE OUT [--minutes 9.5] [--rounds 3] [--given WORLD.safetensors] [--rehearse]
    python bench/landing.py learn BUNDLE OUT RUN [--minutes 18] [--seed 0] [--score 100]   # on one core: another agent, in the dreams of a finished world

A round is Dyna's (Sutton 1991): the world learns from the flights there are; the head learns to read its dreams; the agent learns in those dreams and
nowhere else; processes let the agent fly the real game, and what they record is what the world learns from next. The agent never
learns from a real frame. All real frames are counted in log.json. OUT gets world, reward, policy, and state to go on from: the same command continues.

The world learns here what a lander is to its agent: a quarter percent of the picture. Three things are added to the loss of `TwoCopyLoss`:
weight on the lander's surroundings; pasts that were dreamed, up to ten frames long; and the eyes' own loss |e(D) - e(x)|^2, a perceptual loss
(Johnson et al. 2016) with the frozen eyes e of the reward head, which notice a tilt that squares of latents hardly do.

BUNDLE holds train.npz and test.npz (see `pack`) and `head`, whose eyes are kept. Needs gymnasium[box2d] to fly."""
import argparse, json, math, os, subprocess, sys, tempfile, time, warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from unittest import mock
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from oniris.agents.actor_critic import ActorCritic, Learning, train_agent
from oniris.agents.score import describe_score, Pilot, play_game, score
from oniris.core import generator, seed_for
from oniris.data.environments import make_env, shrink
from oniris.data.policies import make_policy
from oniris.data.record import play
from oniris.dream.imagine import LatentDreamer
from oniris.dream.reward import errors_by_horizon, reward_error, RewardHead
from oniris.dream.reward import _huber, _mean_where, _phases
from oniris.dream.run import load_run
from oniris.dream.train_reward import _mirrored, joined, Rewarded
from oniris.frames import from_uint8
from oniris.games.lander import lander_on_screen
from oniris.nn import attention
from oniris.nn.mp import normalize_weights_
from oniris.recipes.objective import predicted_past
from oniris.training.ema import PowerEMA
from oniris.training.loss import LossNormalizer, motion_weight, TwoCopyLoss

GAME, SKIP, SIZE, LONG, CONTEXT = 'LunarLander-v3', 3, (64, 64), 32, 8
FLOWN, THROWN, BEGUN, OWN = range(4) # where a clip comes from: the recording, thrown in at any tilt, beginnings, the agent's own flights
SHARE = {FLOWN: .25, THROWN: .4, BEGUN: .1, OWN: .25} # of a batch of the world's
BEGAN, LOG = time.monotonic(), []

def say(**what):
    LOG.append(dict(at=round(time.monotonic() - BEGAN, 1)) | what)
    print(json.dumps(LOG[-1]), flush=True)

# ---- real flights, by processes of their own: python bench/landing.py fly JOB.json

def fly_one(job):
    "One flight -> frames, actions, states, rewards, done, some frames after its end with it; what it was paid, whether it ended, well"
    number, seed, thrown, policy, sample = job
    env_seed, rng = seed_for(seed, number, 'flight') % 2**31, np.random.default_rng(seed_for(seed, number, 'pilot'))
    with closing(make_env(GAME, wrap='bench.lander_thrown:thrown' if thrown else None)) as env:
        pilot = None if policy is None else Seeing(policy, sample, int(rng.integers(2**62)))
        act = make_policy('random+held+mixed+heuristic' if pilot is None else pilot, env, rng)
        kept = []
        for item in islice(play(env, env_seed, act, SIZE, SKIP), 334):
            kept.append(item)
            if sum(i[-1] for i in kept[-12:]) >= 12 and len(kept) >= LONG: break
    frames, actions, states, rewards, done = (np.stack(v) for v in zip(*kept))
    last = int(done.argmax()) if done.any() else len(done) - 1
    return (frames, actions, states, rewards, done), (float(rewards[:last + 1].sum()), last, bool(done.any()), bool(done.any() and rewards[last] > 0))

@cache
def loaded(policy): return load_run('lander', 'cpu'), ActorCritic.from_pretrained(policy)

class Seeing:
    "A `Pilot` as a policy of `make_policy`: it sees pictures only"
    def __init__(self, policy, sample, seed):
        self.pilot, self.action = Pilot(*loaded(policy), sample, seed), torch.zeros(1, 1, 4)
        self.pilot.begin(1)
    def __call__(self, env, obs, rng):
        self.action = self.pilot(shrink(env.render(), SIZE)[None, None], self.action)[:, None]
        return int(self.action.argmax())

def fly(job):
    "JOB: flights, thrown (share), scored, policy, seed, workers, out. Clips of 32 frames in OUT.npz, the score in OUT.json"
    j = json.loads(Path(job).read_text())
    torch.set_num_threads(1)
    os.nice(5)
    if j['policy']: loaded(j['policy'])
    jobs = [(n, j['seed'], n < j['thrown'] * j['flights'], j['policy'], True) for n in range(j['flights'])]
    scored = [(n, j['seed'] + 1000, False, j['policy'], False) for n in range(j['scored'])]
    with ProcessPoolExecutor(j['workers'], get_context('fork')) as pool:
        found = list(pool.map(fly_one, scored + jobs))
    scores, flights = [s for _, s in found[:len(scored)]], [f for f, _ in found[len(scored):]]
    clips = []
    for f in flights:
        starts = sorted({*range(0, len(f[0]) - LONG, LONG - 8), len(f[0]) - LONG})
        clips += [[v[s:s + LONG] for v in f] for s in starts if s >= 0 and not f[4][s + CONTEXT:s + CONTEXT + 1].any()]
    names = 'frames', 'actions', 'states', 'rewards', 'done'
    np.savez(f"{j['out']}.tmp.npz", **{k: np.stack(v) for k, v in zip(names, zip(*clips))})
    paid, length, ended, well = zip(*scores) if scores else ((), (), (), ())
    said = dict(score=[round(float(np.mean(v)), 3) for v in (paid, length, ended, well)] if scores else None, n=len(scores),
                frames=sum(len(f[0]) for f in flights), sampled=[round(float(np.mean([s[k] for _, s in found[len(scored):]])), 3) for k in (0, 2, 3)])
    Path(f"{j['out']}.json").write_text(json.dumps(said))
    os.replace(f"{j['out']}.tmp.npz", f"{j['out']}.npz")

def start_flying(scratch, name, **job):
    job |= dict(out=str(scratch / name))
    (scratch / f'{name}.job').write_text(json.dumps(job))
    env = os.environ | dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', OMP_WAIT_POLICY='PASSIVE', SDL_VIDEODRIVER='dummy')
    with open(scratch / f'{name}.err', 'w') as err:
        return scratch / name, subprocess.Popen([sys.executable, '-W', 'ignore', __file__, 'fly', str(scratch / f'{name}.job')], env=env, stdout=err, stderr=err)

# ---- data

def encoded(run, raw, at, mirror, every=1): # name -> array -> Rewarded on the device
    def z(x): return torch.cat([run.codec.to_latents(from_uint8(torch.from_numpy(v).to(at))).half() for v in np.array_split(x, -(-len(x) // 32))])
    raw = {k: v[::every] for k, v in raw.items()}
    actions, rewards, done, states = (torch.from_numpy(raw[k]).to(at) for k in ('actions', 'rewards', 'done', 'states'))
    parts = [Rewarded(z(raw['frames']), actions, rewards.float(), done, states.float())]
    if mirror: parts.append(Rewarded(z(raw['frames'][:, :, :, ::-1].copy()), actions[..., [0, 3, 2, 1]], rewards.float(), done, _mirrored(states.float().cpu(), GAME).to(at)))
    return joined(parts)

@torch.no_grad()
def read(path, run, at, mirror, every=1): # -> Rewarded, kinds
    with np.load(path) as f: raw = {k: f[k] for k in f}
    data = encoded(run, raw, at, mirror, every)
    return data, torch.from_numpy(raw['kind'][::every]).repeat(1 + mirror).to(at)

def pack(bundle, head, *datasets): # where the datasets are: what is to be carried to the card
    from oniris.data.clips import Clips
    for split in ('train', 'test'):
        parts = [[clip for clip in Clips(d, split)] for d in datasets]
        fields = {k: np.stack([c[k] for part in parts for c in part]) for k in ('frames', 'actions', 'states', 'rewards', 'done')}
        np.savez_compressed(bundle / f'{split}.npz', kind=np.repeat(range(len(parts)), [len(p) for p in parts]), **fields)
    RewardHead.from_pretrained(head).save_pretrained(bundle / 'head', half=True)

class Known:
    "All clips on the device, and where they come from"
    def __init__(self, data, kind): self.data, self.kind = data, kind
    def add(self, data, kind):
        self.data = joined([self.data, data])
        self.kind = torch.cat([self.kind, torch.full((len(data),), kind, device=self.kind.device)])
    def draw(self, batch, length, seed, step):
        "Clips by SHARE, windows that begin before the end"
        g, d = torch.Generator(self.kind.device).manual_seed(seed_for(seed, step, 'clips') % 2**63), self.data
        weight = torch.zeros(len(d), device=self.kind.device)
        for k, share in SHARE.items():
            here = self.kind == k
            if here.any(): weight[here] = share / here.sum()
        i = torch.multinomial(weight, batch, True, generator=g)
        most = ((~d.done[i]).sum(1) - length + 4).clamp(0, d.z.shape[1] - length)
        first = (torch.rand(batch, generator=g, device=i.device) * (most + 1)).long()
        t = first[:, None] + torch.arange(length, device=i.device)
        return d.z[i[:, None], t].float(), d.actions[i[:, None], t], d.states[i[:, None], t], d.done[i[:, None], t]

# ---- the world

def near_lander(states, size=16, reach=2.5): # (b t 8) -> (b t 1 h w): 1 where it is
    x, y = (lander_on_screen(states) * size).unbind(-1)
    at = torch.arange(size, device=states.device) + .5
    away = (at[None, None, None] - x[..., None, None]).square() + (at[None, None, :, None] - y[..., None, None]).square()
    return (away < reach ** 2).float()[:, :, None]

def in_sight(states, done): return ~done & (states[..., 0].abs() < .97) & (states[..., 1] < 1.5)

class Sight:
    "|e(D) - e(x)|^2: e what the frozen eyes see of one latent, every number of unit deviation, and what of the state can be read from it by a line"
    def __init__(self, head, data, tell=(0, 1, 4), many=20000):
        self.head, self.tell = head, list(tell)
        i, t = in_sight(data.states, data.done).nonzero().T
        some = torch.randperm(len(i), generator=generator(0, 0, 'sight')).to(i.device)[:many]
        with torch.no_grad(): e = torch.cat([head.look(z.float()) for z in data.z[i[some], t[some]].split(1024)])
        self.mean, self.width = e.mean(0), e.std(0) + .05 * e.std(0).mean()
        true = head.unit_states(data.states[i[some], t[some]])[:, self.tell].clamp(-4, 4)
        a = self.features(e)
        a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
        eye = torch.eye(a.shape[1], device=a.device)
        self.line = torch.linalg.solve(a.T @ a + eye, a.T @ true)
        say(sight=[round(float(v), 3) for v in 1 - (a @ self.line - true).square().mean(0) / true.var(0)])
    def features(self, e): return (e - self.mean) / self.width
    def __call__(self, guess, true, here): # (b t c h w), (b t c h w), bool (b t)
        with torch.autocast(guess.device.type, enabled=False):
            z = torch.where(here[..., None, None, None], guess.float(), true)
            e = self.features(self.head.look(z.flatten(0, 1)))
            with torch.no_grad(): was = self.features(self.head.look(true.flatten(0, 1)))
            off = (e - was).clamp(-8, 8)
            told = off @ self.line[:-1]
            return (off.square().mean(-1) + told.square().mean(-1)).view(here.shape) # (b t); 0 where nothing is to be seen

class Pool:
    "Clips dreamed on from a real moment by the world as it is now, to be trained on as pasts for some steps"
    def __init__(self, run, known, size, ahead, every, seed): self.run, self.known, self.size, self.ahead, self.every, self.seed, self.at = run, known, size, ahead, every, seed, None
    @torch.no_grad()
    def draw(self, batch, step):
        p = step // self.every
        if self.at != p:
            x, a, s, done = self.known.draw(self.size, CONTEXT + self.ahead, self.seed + 77, p)
            world = self.run.denoiser.eval()
            dreamer = LatentDreamer.from_run(self.run, action_space=None, graph=False)
            dreamer.reset(x[:, :CONTEXT], a[:, :CONTEXT], None, self.seed + p)
            past = torch.cat([x[:, :CONTEXT], dreamer.rollout(a[:, CONTEXT:]).to(x)], 1)
            world.train()
            self.at, self.kept = p, (x, a, s, done, past)
        which = torch.randint(self.size, (batch,), generator=generator(self.seed, step, 'pool')).to(self.kept[0].device)
        return [v[which] for v in self.kept]

def train_world(run, known, sight, seconds, at, batch=64, length=18, lr=6e-3, near=8., gain=.3, dreamed=.4, own=.2, seed=0, pool=1024, every=60, std=.1):
    "A share `dreamed` of the clips has pasts from rollouts, a share `own` those of one prediction, the others real ones"
    world = run.denoiser.train().requires_grad_(True)
    normalize_weights_(world)
    loss_fn, far, ema = TwoCopyLoss((.8, 2.5), 1.2, .3, fit=LossNormalizer(2**14, every=16)), TwoCopyLoss(1.5, .7, .3, fit=False), PowerEMA(world, (std,))
    params = list(world.parameters())
    opt = torch.optim.Adam(params, betas=(.9, .99), fused=at == 'cuda')
    seen, rolled, begin, step, sums = None, Pool(run, known, pool, length - CONTEXT, every, seed), time.monotonic(), 0, []
    n = round(dreamed * batch)
    def watched(*v, **k): # the guess, for the eyes
        nonlocal seen
        out = world(*v, **k)
        seen = out[:, 1]
        return out
    watched.sigma_d = world.sigma_d
    if hasattr(world, 'loss_weight'): watched.loss_weight = world.loss_weight
    while (used := (time.monotonic() - begin) / seconds) < 1:
        x, a, s, done = known.draw(batch - n, length, seed, step)
        card = torch.Generator(at).manual_seed(seed_for(seed, step, 'noise') % 2**63)
        with torch.autocast(at, torch.bfloat16):
            rows = torch.arange(len(x)) < own * batch
            past = predicted_past(world, far, x, dict(actions=a), [card], run.codec.project, rows=rows) if rows.any() else x
            if n:
                more = rolled.draw(n, step)
                x, a, s, done, past = (torch.cat(v) for v in zip((x, a, s, done, past), more))
            keep = (torch.rand(len(x), 1, 1, generator=card, device=at) > .05).float()
            loss, logs = loss_fn(watched, x, a * keep, None, generator=card, past=past, weight=motion_weight(past) + near * near_lander(s))
        here = in_sight(s, done)
        here[:, :2] = False
        eyes = sight(seen, x, here).sum() / here.sum().clamp(min=1)
        for group in opt.param_groups: group['lr'] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * used)) / 2
        (loss + gain * eyes).backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 5.)
        if norm.isfinite():
            opt.step()
            normalize_weights_(world)
        loss_fn.update(logs)
        opt.zero_grad()
        step += 1
        ema.update(step)
        sums.append((logs['loss'], float(eyes.detach()), float(norm)))
        if step % 200 == 0: say(world=step, loss=[round(float(v), 4) for v in np.mean(sums[-200:], 0)])
    say(world=step, loss=[round(float(v), 4) for v in np.mean(sums[-200:], 0)], seconds=round(time.monotonic() - begin))
    ema.copy_to(world, 0)
    run.denoiser = world.eval().requires_grad_(False)

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

# ---- the head

@torch.no_grad()
def dream(run, d, ahead=14, width=1024, seed=0): # windows of clips, dreamed under their own keys
    dreamer, out = LatentDreamer.from_run(run, action_space=None, graph=False), []
    for k, some in enumerate(torch.arange(len(d)).split(width)):
        first = torch.randint(d.z.shape[1] - CONTEXT - ahead + 1, (len(some),), generator=generator(seed, k, 'window'))
        (z, a, r, done, s), _ = d.take(some, first, CONTEXT + ahead)
        dreamer.reset(z[:, :CONTEXT], a[:, :CONTEXT], None, seed + k)
        out.append(Rewarded(torch.cat([z[:, :CONTEXT], dreamer.rollout(a[:, CONTEXT:]).to(z)], 1).half(), a, r, done, s))
    return joined(out)

@torch.no_grad()
def looks_of(head, d, noise, seed): # (n t f): what each latent looks like, some under noise
    out = []
    for k in range(0, len(d), 64):
        z, g = d.z[k:k + 64].float(), torch.Generator(d.z.device).manual_seed(seed + k)
        sigma = noise * torch.rand(len(z), 1, 1, 1, 1, generator=g, device=z.device) * (torch.rand(len(z), 1, 1, 1, 1, generator=g, device=z.device) < .6)
        out.append(head.looks(z + sigma * torch.randn(z.shape, generator=g, device=z.device), d.actions[k:k + 64]))
    return torch.cat(out)

def train_time(head, real, dreams, seconds, most=10**6, batch=64, lr=2e-3, share=.4, seed=1): # all but the eyes
    head.requires_grad_(True)
    head.look.requires_grad_(False)
    given = [(d, looks_of(head, d, noise, 3), head.unit_states(d.states).clamp(-6, 6)) for d, noise in ((real, .3), (dreams, .1))]
    params = [p for p in head.parameters() if p.requires_grad]
    opt, begin, step = torch.optim.AdamW(params, betas=(.9, .99), weight_decay=.1), time.monotonic(), 0
    while (used := max((time.monotonic() - begin) / seconds, step / most)) < 1:
        g = generator(seed, step, 'time')
        d, looks, states = given[int(torch.rand((), generator=g) < share)]
        w = torch.randint(len(d), (batch,), generator=g).to(looks.device)
        y = head.read(head.recall(looks[w])[0])
        rewards, done = d.rewards[w], d.done[w]
        going, ends = _phases(done)
        at_end, known = (rewards * ends).sum(1, keepdim=True), ends.any(1, keepdim=True) & done
        loss = (_mean_where(_huber(y[..., 0] - rewards / head.scale), going) + _mean_where(_huber(y[..., 1] - at_end / head.end_scale), known)
                + F.binary_cross_entropy_with_logits(y[..., 2], done.to(y)) + 4 * _huber(y[..., 3:] - states[w], 2.).mean())
        for group in opt.param_groups: group['lr'] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * used)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.)
        opt.step()
        opt.zero_grad()
        step += 1
    head.eval().requires_grad_(False)
    say(head=step, loss=float(loss.detach()))

@torch.no_grad()
def errors_of(run, head, held, kind):
    found = {n: reward_error(head, *(v[kind == k] for v in (held.z, held.actions, held.rewards, held.done, held.states))) for k, n in enumerate(('flown', 'thrown', 'begins'))}
    d = dream(run, held, ahead=24)
    return found | dict(dreamed=errors_by_horizon(head, d.z, d.actions, d.rewards, d.done, CONTEXT))

# ---- the agent

def in_sight_only(d): # dreams begin where something is in sight
    far = (d.states[..., 0].abs() > .97) | (d.states[..., 1] > 1.6)
    return Rewarded(d.z, d.actions, d.rewards, d.done | far, d.states)

def learn_to_fly(run, head, real, how, seconds, small, before, out, seed): # -> policy
    known, saved = [], [time.monotonic()]
    def began(policy):
        known.append(policy)
        if before: # its eyes are new, its habits are not
            policy.actor.load_state_dict(before.actor.state_dict())
            policy.critic.load_state_dict(before.critic.state_dict())
    def watch(step, logs):
        if time.monotonic() - saved[0] > 15:
            known[0].save_pretrained(out / 'policy')
            saved[0] = time.monotonic()
        if 'paid' in logs and (small or step % (how.steps * 10) < 2): say(agent=step, **{k: round(float(logs[k]), 3) for k in ('paid', 'value', 'ended', 'ended_well', 'explained', 'entropy')})
    policy = train_agent(run, in_sight_only(real), Path(tempfile.mkdtemp()), how.steps if small else 10**6, head=head, how=how, minutes=seconds / 60, watch=watch, bar=False,
                         began=began, every=10**6, dreamer=dict(graph=False), seed=seed)
    policy.save_pretrained(out / 'policy')
    return policy

# ---- one more agent, without a GPU

def learn():
    "In the dreams of RUN, with its reward head, from moments of BUNDLE's clips and of the flights in OUT; then the real game"
    ask = argparse.ArgumentParser(description=learn.__doc__)
    ask.add_argument('bundle', type=Path); ask.add_argument('out', type=Path); ask.add_argument('run')
    ask.add_argument('--minutes', type=float, default=18.); ask.add_argument('--seed', type=int, default=0); ask.add_argument('--score', type=int, default=100)
    ask.add_argument('--most', type=int, default=800, help='clips of a round of flights'); ask.add_argument('--rehearse', action='store_true')
    a = ask.parse_args(sys.argv[2:])
    torch.set_num_threads(1)
    run, out, began, curve = load_run(a.run, 'cpu'), a.out / f'cpu{a.seed}', time.monotonic(), []
    head = RewardHead.from_pretrained(run.path / 'reward').eval().requires_grad_(False)
    data, _ = read(a.bundle / 'train.npz', run, 'cpu', True, 40 if a.rehearse else 1)
    for file in sorted(a.out.glob('own*.npz')):
        with np.load(file) as f, torch.no_grad(): own = encoded(run, {k: f[k][:4 if a.rehearse else a.most] for k in f}, 'cpu', False)
        data = joined([data, own, own])
    how = Learning(dreams=4, horizon=3, epochs=1, parts=2) if a.rehearse else Learning(dreams=128, horizon=14, epochs=4, parts=8)
    def watch(step, logs):
        if 'paid' not in logs: return
        curve.append(dict(frames=(len(curve) + 1) * how.dreams * how.horizon, seconds=round(time.monotonic() - began)) | {k: round(float(logs[k]), 3) for k in ('paid', 'ended', 'ended_well', 'entropy')})
        if len(curve) % 5 == 1: print(json.dumps(curve[-1]), flush=True)
    policy = train_agent(run, in_sight_only(data), out / 'run', how.steps if a.rehearse else 10**6, head=head, how=how, minutes=a.minutes, watch=watch, bar=False, seed=a.seed,
                         dreamer=dict(graph=False, amp=torch.bfloat16))
    policy.save_pretrained(out / 'policy', half=True)
    said = score(play_game(run, Pilot(run, policy), a.score, 0, together=20))
    print(describe_score(f'seed {a.seed}', said))
    (out / 'score.json').write_text(json.dumps(dict(score=said, frames=curve[-1]['frames'], seed=a.seed, curve=curve)))

# ---- rounds

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('bundle', type=Path); ask.add_argument('out', type=Path)
    ask.add_argument('--minutes', type=float, default=9.5, help='after which nothing new is begun')
    ask.add_argument('--world', type=float, nargs=2, default=(210., 60.), help="seconds of the world's, in the first round and in the others")
    ask.add_argument('--head', type=float, nargs=2, default=(25., 12.)); ask.add_argument('--agent', type=float, nargs=2, default=(80., 50.))
    ask.add_argument('--rounds', type=int, default=3); ask.add_argument('--horizon', type=int, default=14); ask.add_argument('--gain', type=float, default=.3, help="of the eyes' loss")
    ask.add_argument('--given', help='weights of a world to begin with'); ask.add_argument('--flights', type=int, default=300); ask.add_argument('--thrown', type=int, default=1500)
    ask.add_argument('--score', type=int, default=100); ask.add_argument('--workers', type=int, default=max(1, (os.cpu_count() or 2) - 2)); ask.add_argument('--rehearse', action='store_true')
    a = ask.parse_args()
    at, small = 'cuda' if torch.cuda.is_available() else 'cpu', a.rehearse
    torch.set_num_threads(1 if at == 'cpu' else 4)
    if small: a.flights, a.thrown, a.score, a.workers, a.world, a.head, a.agent = 2, 3, 2, 1, (20., 8.), (4., 4.), (10., 10.)
    a.out.mkdir(parents=True, exist_ok=True)
    scratch, state = Path(tempfile.mkdtemp(dir='/dev/shm' if os.path.isdir('/dev/shm') else None)), a.out / 'state.pt'
    began = torch.load(state, weights_only=False, map_location=at) if state.exists() else None
    flying = []
    if not began: flying = [(start_flying(scratch, 'thrown', flights=a.thrown, thrown=1., scored=0, policy=None, seed=11, workers=a.workers), THROWN)]
    with mock.patch.object(attention, 'attend_flex', attention.attend_grouped): # flex takes half a minute to compile
        run = load_run('lander', at)
        head = RewardHead.from_pretrained(a.bundle / 'head').to(at).eval().requires_grad_(False)
        held, sort = read(a.bundle / 'test.npz', run, at, False, 9 if small else 1)
        policy, round_, frames = None, 0, {}
        if began:
            known, round_, frames = Known(began['data'], began['kind']), began['round'], began['frames']
            run.denoiser.load_state_dict(began['world'])
            head.load_state_dict(began['head'])
            policy = ActorCritic.from_pretrained(a.out / 'policy').to(at)
        else:
            known = Known(*read(a.bundle / ('test.npz' if small else 'train.npz'), run, at, not small, 9 if small else 1))
            tilts(run, head, held, 'shipped world')
            if a.given: run.denoiser.load_state_dict({k: v.float() for k, v in load_file(a.given).items()})
        say(device=at, clips=len(known.data), held=len(held), torch=torch.__version__)
        tilts(run, head, held, 'given world')
        sight = Sight(RewardHead.from_pretrained(a.bundle / 'head').to(at).eval().requires_grad_(False), known.data)
        how = Learning(dreams=4, horizon=3, epochs=1, parts=2) if small else Learning(dreams=2048, horizon=a.horizon, epochs=4, parts=8)

        def collect(patience):
            for (path, job), kind in list(flying):
                while job.poll() is None and patience > 0: time.sleep(.5); patience -= .5
                if job.poll() is None: continue
                flying.remove(((path, job), kind))
                if job.returncode:
                    say(failed=path.name, why=Path(f'{path}.err').read_text()[-1500:])
                    continue
                told = json.loads(Path(f'{path}.json').read_text())
                with np.load(f'{path}.npz') as f: raw = dict(f)
                with torch.no_grad(): known.add(encoded(run, raw, at, True), kind)
                if kind == OWN: Thread(target=np.savez_compressed, args=(a.out / f'{path.name}.npz',), kwargs=raw).start() # to be kept
                frames[path.name] = told['frames']
                say(flown=path.name, clips=len(known.data), **told)

        def left(): return 60 * a.minutes - (time.monotonic() - BEGAN)
        for k in range(a.rounds):
            later = bool(round_)
            seconds = a.world[later]
            if not small and left() < seconds + a.head[later] + a.agent[later] + 15: break
            seed = 21 + round_
            if flying: # what is on its way is used when it is there
                train_world(run, known, sight, seconds * (.5 if later else .25), at, seed=seed + 500, gain=a.gain, lr=3e-3, **(dict(batch=3, length=10, pool=4, every=5) if small else {}))
                seconds *= .5 if later else .75
            collect(60.)
            train_world(run, known, sight, seconds, at, seed=seed, gain=a.gain, lr=6e-3 if not later else 3e-3, **(dict(batch=3, length=10, pool=4, every=5) if small else {}))
            run.denoiser.save_pretrained(a.out / 'world', half=True)
            tilts(run, head, held, f'round {round_}')
            train_time(head, known.data, dream(run, known.data, seed=seed), a.head[later], seed=seed)
            head.save_pretrained(a.out / 'reward')
            tilts(run, head, held, f'round {round_}, new head')
            say(errors=errors_of(run, head, held, sort))
            policy = learn_to_fly(run, head, known.data, how, a.agent[later], small, policy, a.out, seed)
            round_ += 1
            policy.save_pretrained(a.out / f'policy{round_}', half=True)
            flying = [(start_flying(scratch, f'own{round_}', flights=a.flights, thrown=.4, scored=a.score, policy=str(a.out / f'policy{round_}'), seed=100 + round_, workers=a.workers), OWN)]
            (a.out / 'log.json').write_text(json.dumps(LOG))
        collect(max(5., min(45., left() + 25)))
        torch.save(dict(data=known.data, kind=known.kind, round=round_, frames=frames, world=run.denoiser.state_dict(), head=head.state_dict()), state)
        say(done=True, real_frames=frames)
        (a.out / 'log.json').write_text(json.dumps(LOG))
        for _, job in [f for f, _ in flying]: job.kill()

if __name__ == '__main__':
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        fly(sys.argv[2]) if sys.argv[1:2] == ['fly'] else learn() if sys.argv[1:2] == ['learn'] else main()
