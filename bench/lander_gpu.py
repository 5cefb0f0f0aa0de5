"""The best LunarLander world that ten minutes of one data-centre GPU can train, and the recipe to do it again:

    python bench/lander_gpu.py OUT --minutes 8 [--small]

While processes record flights, the network is compiled; then all latents live on the GPU, stage one trains on real pasts, stage two on pasts
that the world has dreamed (`recipes.regenerate`), and OUT gets the averages of both stages in half precision, and the log. --small rehearses it
on a CPU in a minute. What it made is shipped only after the exam of `oniris_evaluate`, which wants no GPU."""
import argparse, json, math, multiprocessing, os, shutil, signal, sys, tempfile, time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock
import numpy as np

CODEC = Path(__file__).resolve().parent.parent/'oniris'/'assets'/'lander'/'codec'
GAME = dict(env_id='LunarLander-v3', wrap=None, options={}, skip=3)
POLICIES = 'held', 'mixed', 'held', 'heuristic', 'held', 'random'  # of one episode after the other
TAIL, FIELDS = 10, ('frames', 'actions', 'states', 'rewards', 'done')
STAGES = 'stage one', 'stage two'

# ---- flights, by processes that write what they have at every deadline
def record_alone(k, n, out, deadlines, size, seed):
    "Flights k, k+n, ..., whole, with some frames after their end; a file at each deadline"
    from contextlib import closing
    from itertools import islice
    from oniris.core import seed_for
    from oniris.data.environments import make_env
    from oniris.data.policies import make_policy
    from oniris.data.record import play
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    e = k
    for number, deadline in enumerate(deadlines):
        kept = []
        while time.time() < deadline:
            rng, env_seed = np.random.default_rng(seed_for(seed, e, 'policy')), seed_for(seed, e, 'env') % 2**31
            with closing(make_env(GAME['env_id'])) as env:
                act, after = make_policy(POLICIES[e//n % len(POLICIES)], env, rng), 0
                flight = []
                for item in islice(play(env, env_seed, act, size, GAME['skip']), 240):
                    flight.append(item)
                    after += item[-1]
                    if after > TAIL: break
            kept.append([np.stack(v) for v in zip(*flight)])  # frames, actions, states, rewards, done
            e += n
        whole = {name: np.concatenate(v) for name, v in zip(FIELDS, zip(*kept))} | dict(lengths=np.array([len(v[0]) for v in kept]))
        np.savez(out/f'{number}-{k}.tmp.npz', **whole)
        os.replace(out/f'{number}-{k}.tmp.npz', out/f'{number}-{k}.npz')

def start_recording(out, seconds, workers, size=(64, 64), seed=3):
    "The processes; their files lie in `out` a little after each of the `seconds`"
    os.environ.setdefault('SDL_VIDEODRIVER', 'dummy')
    out.mkdir(parents=True, exist_ok=True)
    context, deadlines = multiprocessing.get_context('fork'), [time.time() + s for s in seconds]  # fork before anybody touches the GPU
    jobs = [context.Process(target=record_alone, args=(k, workers, out, deadlines, size, seed), daemon=True) for k in range(workers)]
    for job in jobs: job.start()
    return jobs

def recorded(out, number, workers, patience=20):
    "What all processes wrote at a deadline: name -> array (N ...), `lengths` of the flights"
    end = time.time() + patience
    while len(list(out.glob(f'{number}-*[0-9].npz'))) < workers and time.time() < end: time.sleep(.2)
    parts = [dict(np.load(p)) for p in sorted(out.glob(f'{number}-*[0-9].npz'))]
    if not parts: raise RuntimeError('nothing was recorded')
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

class Resident:
    "Latents of flights and of their mirror images, all on one device; what training asks of `Clips`"
    def __init__(self, codec, data, device, chunk=1024, order=(0, 3, 2, 1)):
        import torch
        from oniris.frames import from_uint8
        self.device = torch.device(device)
        def seen(mirrored):
            parts = []
            for i in range(0, len(data['frames']), chunk):
                v = from_uint8(torch.from_numpy(data['frames'][i:i + chunk]).to(device)[:, None])
                parts.append(codec.to_latents(v.flip(-1) if mirrored else v)[:, 0].half())
            return torch.cat(parts)
        self.z = torch.cat([seen(False), seen(True)])
        actions = torch.from_numpy(data['actions']).to(device)
        self.actions = torch.cat([actions, actions[:, list(order)]])
        self.lengths = torch.from_numpy(np.concatenate([data['lengths']]*2)).to(device)
        self.size, self.channels, self.action_dim, self.cond_dim = tuple(self.z.shape[2:]), self.z.shape[1], actions.shape[-1], 0
        self.firsts = {}
    def __add__(self, other):
        import copy, torch
        both = copy.copy(self)
        for k in ('z', 'actions', 'lengths'): setattr(both, k, torch.cat([getattr(self, k), getattr(other, k)]))
        both.firsts = {}
        return both
    def starts(self, length):
        "Every frame with which a window of so many frames can begin"
        import torch
        if length not in self.firsts:
            ends = self.lengths.cumsum(0)
            left = torch.repeat_interleave(ends, self.lengths) - torch.arange(len(self.z), device=self.device)
            self.firsts[length] = (left >= length).nonzero()[:, 0]
        return self.firsts[length]
    def batch(self, seed, step, size, length):
        import torch
        from oniris.core import generator
        from oniris.data.clips import Batch
        starts = self.starts(length)
        start = starts[torch.randint(len(starts), (size,), generator=generator(seed, step, 'resident')).to(self.device)]
        at = start[:, None] + torch.arange(length, device=self.device)
        return Batch(self.z[at].float(), self.actions[at])

# ---- training
@contextmanager
def as_written(world):
    "The network without its compiled form, which was made for other shapes"
    was, world.net._compiled_call_impl = world.net._compiled_call_impl, None
    try: yield
    finally: world.net._compiled_call_impl = was

def objectives():
    import torch
    from oniris.core import seed_for
    from oniris.nn.mp import bake
    from oniris.recipes.objective import WorldObjective, predicted_past
    from oniris.recipes.regenerate import regenerate
    from oniris.training.loss import motion_weight

    class OnCard(WorldObjective):
        "As `WorldObjective`, with noise drawn on the device, and shapes that never change, so that the network is compiled once"
        gain = 1.
        def card(self, step, stream):
            device = next(self.world.parameters()).device
            return torch.Generator(device).manual_seed(seed_for(self.seed, step, stream) % 2**63)
        def keep(self, step, b, device): # which clips train with their actions
            return (torch.rand(b, 1, 1, generator=self.draw(step, 'conditions')) >= self.train.cond_dropout).float().to(device)
        def seen(self, step, x, past, actions):
            weight = (motion_weight(past, self.gain) + motion_weight(x, self.gain))/2  # also where the lander truly moved, should the past have lost it
            loss, logs = self.loss(self.world, x, actions*self.keep(step, len(x), x.device), generator=self.card(step, 'loss'), past=past, weight=weight)
            return loss, logs | dict(frames=x.shape[0]*x.shape[1], off=float((past - x).square().mean().sqrt()))
        def __call__(self, step, microbatch=(0, 1)):
            x, actions, _ = self.clips.batch(self.seed, step, self.train.batch, self.train.length)
            mine = torch.arange(len(x)) < self.context.self_context*len(x)
            past = x
            if mine.any():
                draws = [self.card(step, 'self-context')]
                with as_written(self.world): past = predicted_past(self.world, self.far, x, dict(actions=actions), draws, self.project, rows=mine)
            return self.seen(step, x, past, actions)

    class Dreamed(OnCard):
        "As `RegeneratedPast`: a pool of clips dreamed anew, trained on for `every` steps"
        gain = 3.
        every, long = 64, 32  # steps that a pool serves, frames of its clips
        def pool(self, p):
            if getattr(self, 'kept', (None,))[0] == p: return self.kept[1]
            x, actions, _ = self.clips.batch(self.seed + 1, p, self.context.regenerate, self.long)
            window, precision = self.world.net.config['window'], torch.autocast(x.device.type, torch.bfloat16)
            with precision: past = regenerate(bake(self.world).eval(), x, actions, window, lambda name: self.draw(p, name), self.project, levels=(.7, 8.))
            real = torch.arange(len(x), device=x.device) >= self.context.self_context*len(x)
            past[real] = x[real]
            self.kept = p, (x, past.float(), actions)
            return self.kept[1]
        def __call__(self, step, microbatch=(0, 1)):
            x, past, actions = self.pool(step//self.every)
            b, t, device = self.train.batch, min(self.train.length, x.shape[1]), x.device
            g = self.draw(step, 'windows')
            which, start = torch.randint(len(x), (b,), generator=g).to(device), torch.randint(x.shape[1] - t + 1, (b,), generator=g).to(device)
            at = start[:, None] + torch.arange(t, device=device)
            def cut(v): return v[which[:, None], at]
            return self.seen(step, cut(x), cut(past), cut(actions))
    return OnCard, Dreamed

def say(**what): print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in what.items()}), flush=True)

def stage(name, objective, world, loss, preset, out, seconds, seed):
    "One stage: until its seconds are over, the learning rate half a cosine of the clock"
    import torch
    from oniris.nn.mp import normalize_weights_
    from oniris.training.ema import PowerEMA
    from oniris.training.train import train
    ema, begin = PowerEMA(world), time.time()
    def lr(step): return preset.train.lr*min(1, (step + 1)/100)*(1 + math.cos(math.pi*min(1., (time.time() - begin)/seconds)))/2
    def watch(step, logs):
        if step % 100 == 0: say(stage=name, step=step, loss=logs['loss'], seconds=time.time() - begin, off=logs['off'])
    end = train(world, objective(world), 10**6, out, lr=lr, after_step=normalize_weights_, ema=ema, state=dict(fit=loss), every=10**5, keep=1, minutes=seconds/60,
                bar=False, watch=watch, precision=torch.bfloat16, seed=seed)
    say(stage=name, **{k: end[k] for k in ('step', 'seconds', 'reason', 'skipped')})
    return ema, end['step']

def keep(ema, world, i, path):
    "An average, on disk in half precision: `path`.safetensors"
    import copy
    model = copy.deepcopy(world)
    ema.copy_to(model, i)
    with tempfile.TemporaryDirectory() as folder:
        model.eval().save_pretrained(folder, half=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder)/'model.safetensors', path.with_suffix('.safetensors'))
    return model

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path); p.add_argument('--minutes', type=float, default=8.)
    p.add_argument('--record', type=float, nargs=2, default=(50., 200.), help='seconds after which what was recorded is trained on, in either stage')
    p.add_argument('--workers', type=int, default=max(1, (os.cpu_count() or 2) - 2)); p.add_argument('--batch', type=int, default=64)
    p.add_argument('--length', type=int, default=24); p.add_argument('--share', type=float, default=.55, help='of the time, for stage one')
    p.add_argument('--pool', type=int, default=1024); p.add_argument('--lr', type=float, default=1e-2); p.add_argument('--nocompile', action='store_true')
    p.add_argument('--begin', type=Path, help='weights of an earlier stage one, to go on from'); p.add_argument('--small', action='store_true')
    a = p.parse_args()
    started = time.time()
    scratch = Path(tempfile.mkdtemp(dir='/dev/shm' if os.path.isdir('/dev/shm') else None))
    if a.small: a.record, a.workers, a.batch, a.length, a.pool, a.nocompile = (15., 15.), 1, 4, 12, 8, a.nocompile
    start_recording(scratch, a.record if a.record[1] > a.record[0] else a.record[:1], a.workers)
    import torch
    from oniris.codec.codec import Codec
    from oniris.diffusion.edm import Denoiser
    from oniris.nn import attention
    from oniris.recipes.presets import find_preset, make_world, describe_cost
    from oniris.recipes.train_world import held_out_loss
    from oniris.training.loss import LossNormalizer, TwoCopyLoss
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cudnn.benchmark = True
    say(torch=torch.__version__, device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu', cpus=os.cpu_count(), seconds=time.time() - started)
    OnCard, Dreamed = objectives()
    one = find_preset('lander', train=dict(batch=a.batch, length=a.length, lr=a.lr), context=dict(self_context=.25, project=True))
    two = one.change(train=dict(lr=a.lr/2), context=dict(self_context=.8, regenerate=a.pool))
    class Shape: size, channels, action_dim, cond_dim = (16, 16), 8, 4, 0
    codec = Codec.from_pretrained(CODEC).to(device).eval().requires_grad_(False)
    torch.manual_seed(0)
    world = make_world(one, Shape).to(device)
    if a.begin: world.load_state_dict(Denoiser.from_pretrained(a.begin).state_dict())
    say(cost=describe_cost(world, one, Shape))
    losses = [TwoCopyLoss(one.train.P_mean, one.train.P_std, one.context.sigma_ctx, fit=LossNormalizer(2**15, every=16)) for _ in range(2)]
    def latents(number):
        data = recorded(scratch, number, a.workers)
        say(recorded=number, flights=len(data['lengths']), frames=len(data['done']), after_end=float(data['done'].mean()), seconds=time.time() - started)
        with torch.no_grad(): found = Resident(codec, data, device)
        say(encoded=number, rms=float(found.z[:4096].float().square().mean().sqrt()), seconds=time.time() - started)
        return found
    with mock.patch.object(attention, 'attend_flex', attention.attend_grouped):
        off = same_on_cpu(world, device)
        say(gradients_off_the_cpus=off)
        if off > .05:
            torch.compiler.is_compiling = lambda: True  # the layers' plain sums, then
            say(gradients_off_the_cpus=same_on_cpu(world, device))
        if not a.nocompile: warm(world, one, device)
        test = learn = latents(0)  # averages are chosen on what stage two learns from, too: held out is the exam
        left, runs, ema, best = 60*a.minutes - (time.time() - started) - 14, Path(tempfile.mkdtemp()), None, 0
        for k, (kind, preset, part) in enumerate(((OnCard, one, a.share), (Dreamed, two, 1 - a.share))):
            if k:
                if a.record[1] > a.record[0]: learn = learn + latents(1)
                ema.copy_to(world, best)
            def objective(world): return kind(world, losses[k], learn, preset, k, project=codec.project)
            ema, steps = stage(STAGES[k], objective, world, losses[k], preset, runs/str(k), left*part, k)
            few, found = preset.change(train=dict(batch=min(16, a.batch))), []
            for i, std in enumerate(ema.stds):
                model = keep(ema, world, i, a.out/f'{"one" if k == 0 else "two"}{i}')
                found.append(held_out_loss(model, losses[0], test, few, 6))
                say(stage=STAGES[k], average=std, same_flights=found[-1], steps=steps)
            best = int(np.argmin(found))
    shutil.rmtree(scratch, ignore_errors=True)
    say(done=True, seconds=time.time() - started)

def same_on_cpu(world, device):
    "Largest relative difference of a gradient on the device from the CPU's, both in single precision"
    import copy, torch
    found = []
    for where in (device, 'cpu'):
        model = copy.deepcopy(world).to(where)
        g = torch.Generator().manual_seed(0)
        x, sigma, actions = (torch.randn(*shape, generator=g).to(where) for shape in ((2, 2, 6, 8, 16, 16), (2, 2, 6), (2, 6, 4)))
        model(x, sigma.exp(), actions=actions, clean=x[:, 0]).square().mean().backward()
        found.append({k: p.grad.cpu() for k, p in model.named_parameters() if p.grad is not None})
    return max(float((v - found[0][k]).norm()/v.norm().clamp(min=1e-12)) if k in found[0] else 1. for k, v in found[1].items())

def warm(world, preset, device):
    "The network compiled, forth and back; or as it was, if that fails or takes too long"
    import torch
    def late(*_): raise TimeoutError('compiling took too long')
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(110)
    b, t = preset.train.batch, preset.train.length
    def step(b, grad, keep=False):
        x, sigma = torch.randn(b, 2, t, 8, 16, 16, device=device), torch.ones(b, 2, t, device=device)
        with torch.set_grad_enabled(grad), torch.autocast(device, torch.bfloat16):
            y = world(x, sigma, actions=torch.zeros(b, t, 4, device=device), clean=x[:, 0])
        if grad: y.square().mean().backward()
        if grad and not keep: world.zero_grad(set_to_none=True)
    def seconds(b=b, grad=True):
        step(b, grad); step(b, grad)
        torch.cuda.synchronize() if device == 'cuda' else None
        begin = time.time()
        for _ in range(4): step(b, grad)
        torch.cuda.synchronize() if device == 'cuda' else None
        return (time.time() - begin)/4
    def gradients(): # of one and the same step
        torch.manual_seed(0)
        step(b, True, keep=True)
        found = {k: p.grad.clone() for k, p in world.named_parameters() if p.grad is not None}
        world.zero_grad(set_to_none=True)
        return found
    try:
        with torch.no_grad(): # a gate that is 0 hides a lost gradient
            for k, p in world.named_parameters():
                if k.endswith('slope'): p.add_(.1)
        plain = gradients()
        say(eager=seconds(), memory=torch.cuda.max_memory_allocated()/2**30 if device == 'cuda' else 0.)
        begin = time.time()
        world.net.compile(dynamic=False, **({} if device == 'cuda' else dict(backend='aot_eager')))
        fused = gradients()
        off = {k: float((fused[k] - v).norm()/v.norm().clamp(min=1e-12)) if k in fused else 1. for k, v in plain.items()}
        say(compiled=seconds(), compiling=time.time() - begin, worst=max(off, key=off.get), gradients_off=max(off.values()), mean_off=sum(off.values())/len(off))
        if sum(v > .3 for v in off.values()) > 2: raise RuntimeError(f'gradients of the compiled network differ: {sorted(off, key=off.get)[-5:]}')
    except Exception as e:
        say(compile_failed=f'{type(e).__name__}: {str(e)[:300]}')
        torch._dynamo.reset()
        world.net._compiled_call_impl = None
    finally:
        with torch.no_grad():
            for k, p in world.named_parameters():
                if k.endswith('slope'): p.sub_(.1)
        signal.alarm(0); signal.signal(signal.SIGALRM, old)
    return world

if __name__ == '__main__': main()
