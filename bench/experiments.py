"""Which parts of the recipe earn their keep? One change of the demo's preset at a time, at equal processor seconds, three seeds each.

    python bench/experiments.py [--seconds 30] [--minutes 14] [--only NAME ...] [--data runs/regimes] [--out bench/results/experiments.json]

The base is the preset `lander_cpu` at half of its width: its own objective and loss, on the demo's recording and codec (bench/regimes.py makes them).
VARIANTS names the changes. `step_seconds` is the mean of sixteen steps, measured in turns with the base's, so that all get the same seconds of a machine at rest.
A trained world is examined on 32 flights that begin in mid-air, on the same flights with the actions of another one, and on 16 flights whose lander leaves
the picture (bench/flights.py). Of one seed, every variant has the same weights to begin with, the same clips and the same flights, so runs of a seed can be
compared in pairs. Results are written after every run; what is there is not made again. --minutes (of the processor) ends a session between two runs.
One thread. A run with the field `where` was made on another machine; `repeats` has runs that were made there once more with other numbers of steps.
"""
import argparse, json, platform, time, warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
import torch
import numpy as np
from experiment_parts import ErrorBank, Muon, Soap, StateHead, TrueMask, Ungated, gain, late, patched
from flights import CONTEXT, departures, flights
from oniris.codec.codec import Codec
from oniris.core import write_atomic
from oniris.data.clips import Clips
from oniris.dream.dreamer import Dreamer
from oniris.evaluation.metrics import frame_psnr
from oniris.evaluation.questions import LISTENS
from oniris.frames import from_uint8
from oniris.games.lander import lander_false, lander_near, outside_psnr, position_error
from oniris.nn.mp import bake, normalize_weights_
from oniris.recipes.objective import WorldObjective
from oniris.recipes.presets import Preset, find_preset, make_world
from oniris.recipes.regenerate import RegeneratedPast
from oniris.training.loss import TwoCopyLoss
from oniris.training.train import cosine

HORIZONS = 1, 4, 8, 16, 24
ASKED = dict(near=(lander_near, 0), error=(position_error, 1), outside=(outside_psnr, 1), psnr=(frame_psnr, 1)) # metric, decimals
WIDTH, SEEDS = 32, 3

def adamw(world): return torch.optim.AdamW(world.parameters(), betas=(.9, .99), weight_decay=0.)

@dataclass
class Variant:
    "The base with something changed."
    family: str
    parts: dict = field(default_factory=dict) # of the preset: part -> dict of fields
    objective: type = WorldObjective          # step -> loss, logs
    world: type = None                        # another kind of `Denoiser`
    optimizer: object = adamw
    dream: dict = field(default_factory=dict) # of the `Dreamer`
    patch: int = 0                            # pixels of a patch instead of the codec's latents
    weights: str = ''                         # those of another variant, which is only asked in another way
    times: int = 1                            # the seconds

OWN = dict(self_context=.5) # half of the clips have a past of the world's own, as in the preset
def dreamed_past(least, most): return Variant('own past', dict(context=OWN | dict(regenerate=8, project=True)), late(RegeneratedPast, levels=(least, most)))
def asked(**dream): return Variant('asked otherwise', dream=dream, weights='base')

VARIANTS = { # in the order in which they are made
    'base': Variant('base'),
    # what a frame is estimated from
    'EDM: no frame before': Variant('the frame before', dict(net=dict(sigma_d=None))),
    'frame before, no gate': Variant('the frame before', world=Ungated),
    'gate, no frame before': Variant('the frame before', dict(net=dict(sigma_d=1.4))),
    # the base's weights, dreaming in another way
    'one evaluation': asked(steps=1),
    'six evaluations': asked(steps=6),
    'down to sigma .03': asked(sigma_min=.03),
    'guidance 1.5': asked(guidance=1.5, guidance_base='actions'),
    'remembered with .15': asked(sigma_ctx=.15),
    # the model's own past
    'predicted past': Variant('own past', dict(context=OWN)),
    'predicted past, late': Variant('own past', dict(context=OWN), late(WorldObjective)), # in the second half
    'dreamed past .4-3, late': dreamed_past(.4, 3.),
    'dreamed past .7-12, late': dreamed_past(.7, 12.),
    'base, 3 times': Variant('longer', times=3),
    'predicted past, 3 times': Variant('longer', dict(context=OWN), times=3),
    # noise, optimizer, pixels, the lander, memory
    'P_mean .8 and 2.5': Variant('noise', dict(train=dict(P_mean=(.8, 2.5)))),
    'Muon': Variant('optimizer', optimizer=Muon),
    'pixels, patches of 2': Variant('pixels', dict(net=dict(channel_mult=(1, 2, 4), video_attn=(2,))), patch=2),
    'true mask': Variant('the lander', objective=TrueMask),
    'motion gain 3': Variant('the lander', objective=gain(3.)),
    'error bank, late': Variant('own past', dict(context=OWN), late(ErrorBank)),
    'state head': Variant('the lander', objective=StateHead),
    'sigma_ctx .1': Variant('noise', dict(context=dict(sigma_ctx=.1))),
    'actions never dropped': Variant('the lander', dict(train=dict(cond_dropout=0.))),
    'P_mean 2.5': Variant('noise', dict(train=dict(P_mean=2.5))),
    'no attention': Variant('memory', dict(net=dict(video_attn=()))),
    'SOAP': Variant('optimizer', optimizer=Soap),
    'motion gain 8': Variant('the lander', objective=gain(8.)),
    'sigma_ctx .6': Variant('noise', dict(context=dict(sigma_ctx=.6))),
    'window 3': Variant('memory', dict(net=dict(window=3)), dream=dict(window=3)),
    'P_mean 1.6': Variant('noise', dict(train=dict(P_mean=1.6))),
    'clips of 32': Variant('memory', dict(train=dict(length=32, batch=1))),
    'sinks': Variant('memory', dict(net=dict(window=16)), dream=dict(window=10, sinks=2)),
    'dreamed past .7-8, late': dreamed_past(.7, 8.),
    'clips of 8': Variant('memory', dict(train=dict(length=8, batch=4))),
    'pixels, patches of 4': Variant('pixels', dict(net=dict(model_channels=64)), patch=4),
    'rate 2e-2': Variant('optimizer', dict(train=dict(lr=2e-2))),
    'sigma_d .3': Variant('the frame before', dict(net=dict(sigma_d=.3))),
}

def changed(parts) -> Preset: # unlike `Preset.change`, None is a value
    preset = find_preset('lander_cpu', net=dict(model_channels=WIDTH), context=dict(self_context=0.))
    return replace(preset, **{k: replace(getattr(preset, k), **v) for k, v in parts.items()})

class Data:
    "The demo's clips as latents, or as patches of pixels, and the flights of the exam"
    def __init__(self, folder, number=32, away=16):
        self.folder = Path(folder)
        self.clips = {0: Clips(self.folder / 'latents', 'train')}
        self.codecs = {0: Codec.from_pretrained(self.folder / 'codec').eval().requires_grad_(False)}
        self.flights = {k: v[:number] for k, v in flights(48, 32, folder).items()}
        self.away = departures(away, 32, folder)
        self.hash = self.clips[0].hash

    def of(self, variant):
        if variant.patch not in self.clips: self.clips[variant.patch], self.codecs[variant.patch] = patched(self.folder, variant.patch)
        return self.clips[variant.patch], self.codecs[variant.patch]

class Run:
    "A variant with a world, an optimizer and what it is trained on."
    def __init__(self, variant, data, seed):
        self.preset, self.variant = changed(variant.parts), variant
        clips, self.codec = data.of(variant)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.world = make_world(self.preset, clips)
            if variant.world: self.world = variant.world(self.world.net, sigma_d=self.world.sigma_d)
            train = self.preset.train
            self.loss = TwoCopyLoss(train.P_mean, train.P_std, self.preset.context.sigma_ctx)
            self.objective = variant.objective(self.world, self.loss, clips, self.preset, seed, 0, self.codec.project)
            self.opt = variant.optimizer(self.world)

    def step(self, step, rate):
        loss, logs = self.objective(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.world.parameters(), 1.)
        for group in self.opt.param_groups: group['lr'] = rate
        self.opt.step()
        self.world.zero_grad(set_to_none=True)
        normalize_weights_(self.world)
        self.loss.update(logs)
        return logs['loss']

    def train_for(self, steps):
        self.world.train()
        self.objective.total = steps
        start, losses = time.process_time(), []
        for step in range(steps): losses.append(self.step(step, cosine(step, steps, self.preset.train.lr)))
        return dict(cpu_seconds=round(time.process_time() - start, 1), loss=round(float(np.mean(losses[-50:])), 4))

    def dreamer(self, **more):
        given = self.preset.sampler.arguments() | dict(window=self.preset.net.window, seed=0) | self.variant.dream | more
        return Dreamer(bake(self.world), self.codec, **given)

def step_seconds(data, name, rounds=2, steps=16):
    "Mean seconds of sixteen steps of the base and of a variant, in which there is all that it does now and then; they take turns, the least counts"
    runs = [Run(VARIANTS[n], data, 100) for n in ('base', name)]
    best = [float('inf')] * 2
    for run in runs: run.objective.total = 0 # what comes late comes at once
    for r in range(rounds):
        for i, run in enumerate(runs):
            start = time.process_time()
            for step in range(steps): run.step(steps * r + step, 1e-3)
            best[i] = min(best[i], (time.process_time() - start) / steps)
    base, own = best
    return base, (base + own) / 2 if hasattr(VARIANTS[name].objective, 'total') else own

def dreamed(run, flown, actions, frames):
    real = from_uint8(flown['frames'].numpy())
    dreamer = run.dreamer().reset(real[:, :CONTEXT], actions[:, :CONTEXT])
    return real[:, CONTEXT:CONTEXT + frames], dreamer.rollout(actions[:, CONTEXT:CONTEXT + frames])

def rounded(v, digits): return [[None if x != x else round(x, digits) if digits else int(x) for x in row] for row in v.tolist()]

@torch.no_grad()
def examined(run, data):
    "Metrics of every flight at the horizons; errors with the true actions and with another flight's; landers where there are none"
    flown = data.flights
    real, guess = dreamed(run, flown, flown['actions'], max(HORIZONS))
    at = torch.tensor(HORIZONS) - 1
    out = {k: rounded(f(real[:, at], guess[:, at]), digits) for k, (f, digits) in ASKED.items()}
    actions = flown['actions'].clone()
    actions[:, CONTEXT:] = flown['actions'].roll(-1, 0)[:, CONTEXT:]
    _, other = dreamed(run, flown, actions, LISTENS)
    late = slice(LISTENS // 2, LISTENS)
    square = lambda v: (real[:, :LISTENS] - v[:, :LISTENS]).square().mean((1, 2, 3, 4))
    off = lambda v: position_error(real[:, late], v[:, late]).nanmean(1)
    out['response'] = dict(pixels=rounded(torch.stack([square(guess), square(other)], 1), 6), position=rounded(torch.stack([off(guess), off(other)], 1), 1))
    real, guess = dreamed(run, data.away, data.away['actions'], max(HORIZONS))
    out['false'] = [None if x != x else round(x, 3) for x in lander_false(real, guess).nanmean(1).tolist()]
    return out

def baselines(data):
    real = from_uint8(data.flights['frames'].numpy())
    at = torch.tensor(HORIZONS) + CONTEXT - 1
    marks = lambda guess: {k: rounded(f(real[:, at], guess), digits) for k, (f, digits) in ASKED.items()}
    codec = data.codecs[0]
    copied = real[:, CONTEXT - 1:CONTEXT].expand(-1, len(HORIZONS), -1, -1, -1)
    return {'copy last': marks(copied), 'codec alone': marks(codec.to_video(codec.to_latents(real[:, at])))}

def one_run(name, seed, data, seconds, price, weights):
    variant = VARIANTS[name]
    run, path = Run(variant, data, seed), weights / f'base-{seed}.pt'
    out = dict(name=name, seed=seed, parameters=sum(p.numel() for p in run.world.parameters()))
    if variant.weights: run.world.load_state_dict(torch.load(path, weights_only=True))
    else: out |= dict(steps=(steps := round(variant.times * seconds / price))) | run.train_for(steps)
    if name == 'base':
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(run.world.state_dict(), path)
    start = time.process_time()
    out['exam'] = examined(run, data)
    return out | dict(exam_seconds=round(time.process_time() - start, 1))

def line(r):
    mean = lambda k: ' '.join(f'{np.nanmean(np.array(r["exam"][k], dtype=float)[:, h]):.3g}' for h in range(1, len(HORIZONS)))
    (a, b), false = (np.nanmean(np.array(v, dtype=float), 0) for v in (r['exam']['response']['position'], r['exam']['false']))
    cost = f"{r.get('steps', 0)} steps, {r.get('cpu_seconds', 0):.0f}+{r['exam_seconds']:.0f} s"
    return (f"[{time.strftime('%H:%M')}] {r['name']}, seed {r['seed']}: {cost}; near {mean('near')}; off {mean('error')} px; outside {mean('outside')}; "
            f"shuffled {b / a:.2f}; false {false:.2f}")

def claimed(path):
    "Nobody else makes this run, or did so in the last quarter of an hour?"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and time.time() - path.stat().st_mtime > 900: path.unlink()
    try: path.open('x').close()
    except FileExistsError: return False
    return True

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=30., help='of training, each run')
    p.add_argument('--minutes', type=float, default=1e9, help='of the processor: begin no run after so many')
    p.add_argument('--only', nargs='+', default=list(VARIANTS), choices=list(VARIANTS))
    p.add_argument('--seeds', type=int, nargs='+', default=list(range(SEEDS)))
    p.add_argument('--data', default='runs/regimes')
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'experiments.json'))
    a = p.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore')
    data, out, weights = Data(a.data), Path(a.out), Path(a.data) / 'experiments'
    page = json.loads(out.read_text()) if out.exists() else dict(
        torch=torch.__version__, machine=platform.machine(), data=data.hash, seconds=a.seconds, width=WIDTH, context=CONTEXT, horizons=HORIZONS,
        flights=len(data.flights['frames']), baselines=baselines(data), step_seconds={}, runs=[])
    def update(): # another session may have been here
        if out.exists():
            there, mine = json.loads(out.read_text()), {(r['name'], r['seed']) for r in page['runs']}
            page['runs'] += [r for r in there['runs'] if (r['name'], r['seed']) not in mine]
            page['step_seconds'] |= there['step_seconds']
    def write():
        update()
        write_atomic(out, (json.dumps(page) + '\n').encode())
    for name, seed in ((n, s) for n in a.only for s in a.seeds):
        if time.process_time() > 60 * a.minutes: return
        update()
        if any((r['name'], r['seed']) == (name, seed) for r in page['runs']): continue
        if VARIANTS[name].weights and not (weights / f'base-{seed}.pt').exists(): continue
        if not claimed(claim := weights / f'{name}-{seed}.claim'): continue
        if not VARIANTS[name].weights and name not in page['step_seconds']: # with the base, which tells how the machine is just now
            base, own = step_seconds(data, name)
            page['step_seconds'][name] = own / base * page['step_seconds'].setdefault('base', base)
            write()
        page['runs'].append(r := one_run(name, seed, data, a.seconds, page['step_seconds'].get(name), weights))
        page['families'] = {n: v.family for n, v in VARIANTS.items()}
        write()
        claim.unlink()
        print(line(r), flush=True)

if __name__ == '__main__': main()
