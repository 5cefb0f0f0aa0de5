"""Regimes of training video at equal processor seconds: two copies, frame stacking, a context for each target, Diffusion Forcing, whole video.

    python bench/regimes.py [--minutes 2] [--seeds 3] [--out bench/results/regimes.json]

The data are the demo's: LunarLander, 280 clips of 32 frames of 32x32 and their mirror images, as 8x8x8 latents of the demo's codec, or as pixels. They are looked for
in --data (of `oniris_demo`: data, codec, latents) and made there if they are missing. One thread. `step_seconds` measures a training step of every regime in turns;
the minutes are divided by that, so that all get the same seconds of a machine at rest. Then, seed by seed, every regime trains and is examined on 32 flights that begin
in mid-air (bench/flights.py). Results are written after every run; a run that is there is not made again; one that was killed goes on.

--sweep makes short runs of three rates for each regime first and keeps the best by held-out error; without it the rates of an earlier sweep in --out are used.
--costs measures seconds of a supervised frame by the length of the context, and seconds and memory of a dreamed frame.
--windows RUN dreams the first flights with a finished run of `oniris_demo` and windows of 12, 3 and 1 frames.
"""
import argparse, json, platform, time
from pathlib import Path
import torch
from flights import CONTEXT, flights
from oniris.codec.codec import Codec
from oniris.core import write_atomic
from oniris.data.clips import Clips
from oniris.dream.dreamer import Dreamer
from oniris.dream.run import load_run
from oniris.evaluation.metrics import frame_psnr
from oniris.frames import from_uint8
from oniris.games.lander import MIRRORS, lander_found, lander_near, outside_psnr, position_error
from oniris.recipes.regimes import REGIMES, TwoCopies, in_memory, make_regime, step_seconds, train_for, train_step, adam

HORIZONS = 1, 2, 4, 8, 16, 24, 32
RATES = 1e-2, 2e-2
ASKED = dict(near=lander_near, found=lander_found, error=position_error, outside=outside_psnr, psnr=frame_psnr)
RUNS = {name: (name, 'latents') for name in ('two copies', 'frame stacking', 'own context', 'diffusion forcing', 'whole video', 'two copies, EDM')} | {
    'frame stacking, pixels': ('frame stacking, EDM', 'pixels'), 'two copies, pixels': ('two copies', 'pixels')} # name -> regime, what it sees

class Data:
    "The demo's clips as latents and as pixels, and the flights of the exam"
    def __init__(self, folder, number):
        folder = Path(folder)
        if not (folder / 'latents').is_dir(): made(folder)
        mirror = MIRRORS['LunarLander-v3']
        self.codec = Codec.from_pretrained(folder / 'codec').eval().requires_grad_(False)
        self.train = dict(latents=in_memory(Clips(folder / 'latents', 'train')), pixels=in_memory(Clips(folder / 'data', 'train'), mirror))
        self.held = dict(latents=in_memory(Clips(folder / 'latents', 'test')), pixels=in_memory(Clips(folder / 'data', 'test')))
        self.flights = {k: v[:number] for k, v in flights(max(48, number), 32, folder).items()}
        self.hash = Clips(folder / 'latents').hash

def made(folder):
    "The demo's recording, codec and latents"
    from oniris.recipes.demo import lander_data
    from oniris.recipes.presets import find_preset
    from oniris.recipes.train_world import preflight, prepare
    data = lander_data(folder / 'data', 280).path
    prepare(preflight(data, folder, find_preset('lander_cpu'), None, None, 'cpu', 0, None, None), 0)

def regime(name, data, seed, widths):
    kind, space = RUNS[name]
    if space == 'latents': return make_regime(kind, *data.train['latents'], data.codec, seed, net=dict(model_channels=widths[0], channel_mult=(1, 2), video_attn=(4,)))
    net = dict(model_channels=widths[1], channel_mult=(1, 2, 4, 8), video_attn=(4,))
    return make_regime(kind, *data.train['pixels'], None, seed, net=net, wider=1., P_mean=.3, **({} if REGIMES[kind][0] is TwoCopies else dict(batch=16)))

def held_of(name, data, clips=10):
    return tuple(v[:clips] for v in data.held[RUNS[name][1]])

@torch.no_grad()
def examined(regime, data):
    "Every metric of every flight at the horizons, where the flight flies: metric -> (flights horizons) as lists; and seconds a dreamed frame"
    real, actions = from_uint8(data.flights['frames'].numpy()), data.flights['actions']
    start = time.process_time()
    guess = regime.rollout(real[:, :CONTEXT], actions)
    seconds = (time.process_time() - start) / guess.shape[0] / guess.shape[1]
    return marks(real, guess) | dict(seconds_per_frame=seconds)

def marks(real, guess):
    at = torch.tensor(HORIZONS) - 1
    ahead, last = real[:, CONTEXT:][:, at], real[:, CONTEXT - 1:CONTEXT].expand(-1, len(HORIZONS), -1, -1, -1)
    values = {k: f(ahead, guess[:, at]) for k, f in ASKED.items()}
    values['delta'] = values['psnr'] - frame_psnr(ahead, last)
    return {k: [[None if x != x else round(x, 4) for x in row] for row in v.tolist()] for k, v in values.items()}

def one_run(name, seed, data, steps, lr, widths, folder):
    r = regime(name, data, seed, widths)
    start = time.process_time()
    curve = train_for(r, steps, lr, held_of(name, data), out=Path(folder) / f'{name.replace(" ", "-").replace(",", "")}-{seed}-{steps}.pt')
    spent = time.process_time() - start
    out = dict(name=name, seed=seed, steps=steps, lr=lr, parameters=sum(p.numel() for p in r.world.parameters()), cpu_seconds=round(spent, 1), curve=curve)
    out['exam'] = examined(r, data)
    return out

@torch.no_grad()
def windows(path, data, flown=16, tried=(12, 3, 1)):
    "How much of its memory does a finished run's dream use? -> window -> metric -> flights, horizons"
    run, real, out = load_run(path, 'cpu'), from_uint8(data.flights['frames'][:flown].numpy()), {}
    for window in tried:
        dreamer = Dreamer.from_run(run, window=window).reset(real[:, :CONTEXT], data.flights['actions'][:flown, :CONTEXT])
        out[window] = marks(real, dreamer.rollout(data.flights['actions'][:flown, CONTEXT:]))
        print(f'window {window}: near', [round(sum(v or 0 for v in col) / len(col), 2) for col in zip(*out[window]['near'])], flush=True)
    return out

def baselines(data):
    real = from_uint8(data.flights['frames'].numpy())
    copied = real[:, CONTEXT - 1:CONTEXT].expand(-1, real.shape[1] - CONTEXT, -1, -1, -1)
    coded = data.codec.to_video(data.codec.to_latents(real[:, CONTEXT:]))
    return {'copy last': marks(real, copied), 'codec alone': marks(real, coded)}

def sweep(name, data, steps, widths):
    "Held-out error of short runs -> rate -> error"
    out = {}
    for lr in RATES:
        r = regime(name, data, 100, widths)
        out[lr] = train_for(r, steps, lr, held_of(name, data), marks=1)[-1]['held_out']
        print(f'  rate {lr}: {out[lr]:.4f}', flush=True)
    return out

# ---- what things cost
LENGTHS = 4, 8, 16, 32, 64

def repeated(v, t): # clips as long as that, to measure with
    return v[:, torch.arange(t) % v.shape[1]]

def seconds_of(f, rounds):
    best = float('inf')
    for _ in range(rounds):
        start = time.process_time()
        f()
        best = min(best, time.process_time() - start)
    return best

def training_costs(data, widths, rounds=3, evaluated=64):
    "name -> context length -> processor seconds of forward and backward for a supervised frame, on the real network, about 64 frames evaluated in a pass"
    x, actions = (v[:64] for v in data.train['latents'])
    net, out = dict(model_channels=widths[0], channel_mult=(1, 2), video_attn=(4,)), {}
    for name in ('two copies', 'own context', 'own context, full', 'diffusion forcing', 'whole video', 'frame stacking'):
        kind = name.split(', ')[0]
        for t in LENGTHS:
            if kind == 'own context': seconds = own_context_cost(make_regime(kind, repeated(x, t), repeated(actions, t), net=net, length=t), name == kind, rounds, evaluated)
            else:
                stack = kind == 'frame stacking'
                batch = evaluated if stack else max(1, evaluated // t // (2 if kind == 'two copies' else 1))
                size = dict(batch=batch) if stack else dict(batch=batch, length=t)
                r = make_regime(kind, repeated(x, max(t, 5)), repeated(actions, max(t, 5)), net=net, **size)
                seconds = seconds_of(lambda: r(0)[0].backward(), rounds) / r(0)[1]['frames']
            out.setdefault(name, {})[t] = seconds
        print(name, {t: f'{1e3 * s:.2f} ms' for t, s in out[name].items()}, flush=True)
    return out

def own_context_cost(r, all_lengths, rounds, evaluated):
    "Of contexts of 0 to N-1 frames, eight lengths of them, or of N-1 alone"
    t = r.length
    at = sorted({round(i * (t - 1) / 7) for i in range(8)}) if all_lengths else [t - 1]
    def cost(i):
        b = max(1, evaluated // (i + 1))
        x, actions = r.x[:b], r.actions[:b]
        noisy, sigma = r.loss.noised(x, r.draw(0, 'noise'))
        return seconds_of(lambda: r.target(x, actions, noisy, sigma, i)[1].sum().backward(), rounds) / b
    return sum(map(cost, at)) / len(at)

@torch.no_grad()
def dreaming_costs(data, widths):
    "name -> frames dreamed -> seconds of a frame over the last quarter, and bytes kept from frame to frame"
    out = {}
    for name in RUNS:
        r = regime(name, data, 0, widths)
        r.world.eval()
        real, actions = from_uint8(data.flights['frames'][:1, :CONTEXT].numpy()), data.flights['actions'][:1]
        for frames in (8, 32, 128):
            a = repeated(actions, CONTEXT + frames)
            seconds = seconds_of(lambda: r.rollout(real, a), 2 if frames < 128 else 1) / frames
            out.setdefault(name, {})[frames] = dict(seconds=seconds, bytes=r.held)
        print(name, {t: f"{1e3 * v['seconds']:.1f} ms, {v['bytes'] / 1024:.0f} KiB" for t, v in out[name].items()}, flush=True)
    return out

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=2.)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--data', default='runs/regimes')
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'regimes.json'))
    p.add_argument('--flights', type=int, default=32)
    p.add_argument('--widths', type=int, nargs=2, default=[32, 16], help='of the first level: on latents, on pixels')
    p.add_argument('--only', nargs='+', default=list(RUNS), choices=list(RUNS))
    p.add_argument('--sweep', type=float, default=0., help='seconds of each short run')
    p.add_argument('--costs', action='store_true')
    p.add_argument('--windows', default='', help='a finished run of oniris_demo')
    a = p.parse_args()
    torch.set_num_threads(1)
    data, out = Data(a.data, a.flights), Path(a.out)
    page = json.loads(out.read_text()) if out.exists() else dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), data=data.hash, widths=a.widths,
                                                               context=CONTEXT, horizons=HORIZONS, flights=a.flights, runs=[], rates={}, step_seconds={})
    def write(): write_atomic(out, (json.dumps(page) + '\n').encode())
    if not page['step_seconds']: page['step_seconds'] = step_seconds({n: regime(n, data, 0, a.widths) for n in RUNS}) # all in one go, or they are not comparable
    page.setdefault('baselines', baselines(data))
    print({k: f'{1e3 * v:.0f} ms' for k, v in page['step_seconds'].items()}, flush=True)
    if a.costs: page |= dict(training_costs=training_costs(data, a.widths), dreaming_costs=dreaming_costs(data, a.widths))
    if a.windows: page['windows'] = windows(a.windows, data)
    if a.sweep:
        for name in a.only:
            if name in page['rates']: continue
            print(name, flush=True)
            page['rates'][name] = sweep(name, data, round(a.sweep / page['step_seconds'][name]), a.widths)
            write()
    page |= dict(minutes=a.minutes, flights=a.flights)
    for seed in range(a.seeds):
        for name in a.only:
            if any((r['name'], r['seed']) == (name, seed) for r in page['runs']): continue
            rates = page['rates'].get(name) or {1e-2: 0.}
            lr = float(min(rates, key=rates.get))
            steps = round(60 * a.minutes / page['step_seconds'][name])
            page['runs'].append(r := one_run(name, seed, data, steps, lr, a.widths, Path(a.data) / 'weights'))
            write()
            share = lambda k, h: (lambda v: sum(v) / max(1, len(v)))([row[HORIZONS.index(h)] for row in r['exam'][k] if row[HORIZONS.index(h)] is not None])
            print(f"[{time.strftime('%H:%M')}] {name}, seed {seed}: {steps} steps, {r['cpu_seconds']:.0f} s, held out {r['curve'][-1]['held_out']:.4f}; near at 8/16/32 "
                  f"{share('near', 8):.2f} {share('near', 16):.2f} {share('near', 32):.2f}, dPSNR {share('delta', 1):+.1f} {share('delta', 8):+.1f} {share('delta', 16):+.1f}, "
                  f"outside {share('outside', 16):.1f}", flush=True)
    write()

if __name__ == '__main__': main()
