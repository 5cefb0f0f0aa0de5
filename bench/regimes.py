"""Regimes of training video at equal processor seconds: two copies, frame stacking, a context for each target, Diffusion Forcing, whole video.

    python bench/regimes.py --sweep --costs [--minutes 2] [--pixels 2] [--seeds 3] [--out bench/results/regimes.json]

The data are the demo's: LunarLander, 280 clips of 32 frames of 32x32 and their mirror images, as 8x8x8 latents of the demo's codec, or as pixels. They are looked for
in --data (of `oniris_demo`: data, codec, latents) and made there if they are missing. One thread. `step_seconds` measures a training step of every regime in turns;
the minutes are divided by that, so that all get the same seconds of a machine at rest. Then, seed by seed, every regime trains and is examined on 32 flights that begin
in mid-air (`benchmark.fair_start`), after 8 frames, with the noise levels that suit it best on 16 other flights. What is finished is kept in --data/parts, a file each;
what is there is not made again, what was killed goes on, several of these commands may run at once (--only), and each writes all that is there into --out.

--sweep makes short runs of three rates for each regime first and keeps the best by held-out error; without it every rate is 0.02.
--costs measures seconds of a supervised frame by the length of the context, and seconds and memory of a dreamed frame.
--windows RUN dreams 16 flights with a finished run of `oniris_demo` and windows of 12, 3 and 1 frames.
"""
import argparse, json, platform, time
from pathlib import Path
from types import SimpleNamespace
import torch
from oniris.codec.codec import Codec
from oniris.core import write_atomic
from oniris.data.clips import Clips
from oniris.dream.dreamer import Dreamer
from oniris.diffusion.sampler import karras_sigmas
from oniris.dream.run import load_run
from oniris.evaluation.benchmark import played
from oniris.evaluation.metrics import frame_psnr
from oniris.games.lander import MIRRORS, lander_found, lander_near, outside_psnr, position_error
from oniris.recipes.regimes import REGIMES, TwoCopies, in_memory, make_regime, step_seconds, train_for

HORIZONS = 1, 2, 4, 8, 16, 24, 32
CONTEXT = 8 # frames that are shown
RATES = 1e-2, 2e-2, 4e-2
LEVELS = (3, .03, 20.), (3, 3., 20.), (3, .004, 10.) # evaluations, least and most noise: EDM's way, the demo's, DIAMOND's for a deviation of 1
WHOLE_LEVELS = (4, .03, 80.), (4, 3., 80.)
ASKED = dict(near=lander_near, found=lander_found, error=position_error, outside=outside_psnr, psnr=frame_psnr)
RUNS = {name: (name, 'latents') for name in ('two copies', 'frame stacking', 'own context', 'diffusion forcing', 'whole video', 'two copies, EDM')} | {
    'frame stacking, pixels': ('frame stacking, EDM', 'pixels'), 'two copies, pixels': ('two copies', 'pixels')} # name -> regime, what it sees

class Data:
    "The demo's clips as latents and as pixels, the flights of the exam, and others to tune with"
    def __init__(self, folder, number, others=16):
        folder = Path(folder)
        if not (folder / 'latents').is_dir(): made(folder)
        mirror = MIRRORS['LunarLander-v3']
        self.codec = Codec.from_pretrained(folder / 'codec').eval().requires_grad_(False)
        self.train = dict(latents=in_memory(Clips(folder / 'latents', 'train')), pixels=in_memory(Clips(folder / 'data', 'train'), mirror))
        self.held = dict(latents=in_memory(Clips(folder / 'latents', 'test')), pixels=in_memory(Clips(folder / 'data', 'test')))
        like = SimpleNamespace(about=Clips(folder / 'data').about, size=(32, 32), context=CONTEXT)
        every = played(like, folder / 'flights', 'expert', number + others, max(HORIZONS))
        if every.notes: raise RuntimeError(every.notes[0])
        self.flights, self.others = every.part(slice(number)), every.part(slice(number, None))
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
    return make_regime(kind, *data.train['pixels'], None, seed, net=net, wider=1.25, P_mean=.3, **({} if REGIMES[kind][0] is TwoCopies else dict(batch=16)))

def held_of(name, data, clips=10):
    return tuple(v[:clips] for v in data.held[RUNS[name][1]])

@torch.no_grad()
def examined(regime, flights, frames=max(HORIZONS)):
    "Every metric of every flight at the horizons, where the flight flies: metric -> (flights horizons) as lists; and seconds a dreamed frame"
    start = time.process_time()
    guess = regime.rollout(flights.video[:, :CONTEXT], flights.actions[:, :CONTEXT + frames])
    seconds = (time.process_time() - start) / guess.shape[0] / guess.shape[1]
    return marks(flights.video, guess) | dict(seconds_per_frame=seconds)

def marks(real, guess):
    at = torch.tensor([h for h in HORIZONS if h <= guess.shape[1]]) - 1
    ahead, last = real[:, CONTEXT:][:, at], real[:, CONTEXT - 1:CONTEXT].expand(-1, len(at), -1, -1, -1)
    values = {k: f(ahead, guess[:, at]) for k, f in ASKED.items()}
    values['delta'] = values['psnr'] - frame_psnr(ahead, last)
    return {k: [[None if x != x else round(x, 4) for x in row] for row in v.tolist()] for k, v in values.items()}

def mean_at(marks, metric, *horizons):
    v = [row[HORIZONS.index(h)] for row in marks[metric] for h in horizons]
    v = [x for x in v if x is not None]
    return sum(v) / max(1, len(v))

def score(marks): # near, to a fortieth; then PSNR
    return round(40 * mean_at(marks, 'near', 2, 4, 8, 16)), mean_at(marks, 'psnr', 2, 4, 8, 16)

def best_levels(regime, data):
    "Noise levels of a dream, tried on the other flights -> the best, and the score of each"
    tried, whole = {}, hasattr(regime.world.net, 'config') and regime.world.net.config.get('block', 1) > 1
    for levels in WHOLE_LEVELS if whole else LEVELS:
        regime.sigmas = karras_sigmas(*levels)
        tried[levels] = score(examined(regime, data.others, 16))
    return max(tried, key=tried.get), [dict(levels=k, score=v) for k, v in tried.items()]

def one_run(name, seed, data, steps, lr, widths, parts):
    r = regime(name, data, seed, widths)
    start = time.process_time()
    curve = train_for(r, steps, lr, held_of(name, data), out=parts / f'{part_name(name)}-{seed}-{steps}.pt')
    spent = time.process_time() - start
    first = json.loads(p.read_text())['levels'] if (p := parts / f'{part_name(name)}-0-{steps}.json').exists() else None
    levels, tried = (first, None) if seed else best_levels(r, data)
    r.sigmas = karras_sigmas(*levels)
    out = dict(name=name, seed=seed, steps=steps, lr=lr, parameters=sum(p.numel() for p in r.world.parameters()), cpu_seconds=round(spent, 1), curve=curve)
    return out | dict(levels=levels, tried=tried, exam=examined(r, data.flights))

def part_name(name): return name.replace(' ', '-').replace(',', '')

@torch.no_grad()
def windows(path, data, flown=16, tried=(12, 3, 1)):
    "How much of its memory does a finished run's dream use? -> window -> metric -> flights, horizons"
    run, real, actions, out = load_run(path, 'cpu'), data.flights.video[:flown], data.flights.actions[:flown], {}
    for window in tried:
        dreamer = Dreamer.from_run(run, window=window).reset(real[:, :CONTEXT], actions[:, :CONTEXT])
        out[window] = marks(real, dreamer.rollout(actions[:, CONTEXT:]))
        print(f'window {window}: near', [round(mean_at(out[window], 'near', h), 2) for h in HORIZONS], flush=True)
    return out

def baselines(data):
    real = data.flights.video
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
        real, actions = data.flights.video[:1, :CONTEXT], data.flights.actions[:1]
        for frames in (8, 32, 128):
            a = repeated(actions, CONTEXT + frames)
            seconds = seconds_of(lambda: r.rollout(real, a), 2 if frames < 128 else 1) / frames
            out.setdefault(name, {})[frames] = dict(seconds=seconds, bytes=r.held)
        print(name, {t: f"{1e3 * v['seconds']:.1f} ms, {v['bytes'] / 1024:.0f} KiB" for t, v in out[name].items()}, flush=True)
    return out

def kept(path, make):
    "What `make` returned when it was first asked, from a JSON file"
    if not path.exists(): write_atomic(path, (json.dumps(make()) + '\n').encode())
    return json.loads(path.read_text())

def told(r):
    at = lambda k, *horizons: ' '.join(f'{mean_at(r["exam"], k, h):.2f}' for h in horizons)
    print(f"[{time.strftime('%H:%M')}] {r['name']}, seed {r['seed']}: {r['steps']} steps, {r['cpu_seconds']:.0f} s, held out {r['curve'][-1]['held_out']:.4f}, levels {r['levels']}; "
          f"near at 4/8/16/32 {at('near', 4, 8, 16, 32)}, PSNR at 1/4/8/16 {at('psnr', 1, 4, 8, 16)}, delta {at('delta', 1, 4, 8, 16)}, outside at 16 {at('outside', 16)}", flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=2., help='of training, on latents')
    p.add_argument('--pixels', type=float, default=2., help='of training, on pixels')
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--data', default='runs/regimes')
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'regimes.json'))
    p.add_argument('--flights', type=int, default=32)
    p.add_argument('--widths', type=int, nargs=2, default=[64, 16], help='of the first level: on latents, on pixels')
    p.add_argument('--only', nargs='+', default=list(RUNS), choices=list(RUNS))
    p.add_argument('--sweep', action='store_true')
    p.add_argument('--costs', action='store_true')
    p.add_argument('--windows', default='', help='a finished run of oniris_demo')
    a = p.parse_args()
    torch.set_num_threads(1)
    data, parts = Data(a.data, a.flights), Path(a.data) / 'parts'
    seconds = kept(parts / 'step_seconds.json', lambda: step_seconds({n: regime(n, data, 0, a.widths) for n in RUNS})) # all in one go, or they are not comparable
    print({k: f'{1e3 * v:.0f} ms' for k, v in seconds.items()}, flush=True)
    steps = {n: round(60 * (a.minutes if space == 'latents' else a.pixels) / seconds[n]) for n, (_, space) in RUNS.items()}
    if a.costs: kept(parts / 'costs.json', lambda: dict(training_costs=training_costs(data, a.widths), dreaming_costs=dreaming_costs(data, a.widths)))
    if a.windows: kept(parts / 'windows.json', lambda: windows(a.windows, data))
    if a.sweep:
        for name in a.only: kept(parts / f'{part_name(name)}-rates.json', lambda: sweep(name, data, steps[name] // 6, a.widths))
    for seed in range(a.seeds):
        for name in a.only:
            swept = parts / f'{part_name(name)}-rates.json'
            rates = json.loads(swept.read_text()) if swept.exists() else {2e-2: 0.}
            lr = float(min(rates, key=rates.get))
            told(kept(parts / f'{part_name(name)}-{seed}-{steps[name]}.json', lambda: one_run(name, seed, data, steps[name], lr, a.widths, parts)))
    there = lambda path: json.loads(path.read_text()) if path.exists() else None
    runs = [r for seed in range(a.seeds) for name in RUNS if (r := there(parts / f'{part_name(name)}-{seed}-{steps[name]}.json'))]
    page = dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), data=data.hash, flights=a.flights, flights_hash=data.flights.hash, widths=a.widths,
                minutes=dict(latents=a.minutes, pixels=a.pixels), context=CONTEXT, horizons=HORIZONS, step_seconds=seconds,
                rates={n: r for n in RUNS if (r := there(parts / f'{part_name(n)}-rates.json'))}, baselines=baselines(data), runs=runs)
    page |= (there(parts / 'costs.json') or {}) | (dict(windows=w) if (w := there(parts / 'windows.json')) else {})
    write_atomic(Path(a.out), (json.dumps(page) + '\n').encode())

if __name__ == '__main__': main()
