"""Is attention over the past used on LunarLander? Two copies at equal processor seconds, with attention elsewhere, without it, without the other way to see the past.

    python bench/attention.py [--seconds 40] [--seeds 3] [--data runs/regimes] [--out bench/results/attention.json]

Data, flights and network are those of bench/regimes.py. Each world dreams the flights with a window of 12 frames, as it was trained, and of 1: what does forgetting cost?
"""
import argparse, json, time
from pathlib import Path
import torch
from oniris.core import write_atomic
from oniris.diffusion.sampler import karras_sigmas
from oniris.recipes.regimes import make_regime, step_seconds, train_for
from regimes import Data, LEVELS, examined, kept, mean_at

LATENTS = dict(model_channels=64, channel_mult=(1, 2), video_attn=(4,))
PIXELS = dict(model_channels=16, channel_mult=(1, 2, 4, 8), video_attn=(4,))
WORLDS = {
    'as it is, at 4x4': ('latents', {}, {}),
    'no attention': ('latents', dict(video_attn=()), {}),
    'at 8x8 and 4x4': ('latents', dict(video_attn=(8, 4)), {}),
    'clips of 32 frames': ('latents', {}, dict(length=32)),
    'no convolution over time': ('latents', dict(kernel_t=1), {}),
    'pixels, at 4x4': ('pixels', {}, dict(P_mean=.3)),
    'pixels, at 16x16': ('pixels', dict(video_attn=(16,)), dict(P_mean=.3)),
} # name -> what it sees, changes of the network, changes of the regime
WINDOWS = 12, 1

def world(name, data, seed):
    space, net, changes = WORLDS[name]
    codec = data.codec if space == 'latents' else None
    r = make_regime('two copies', *data.train[space], codec, seed, net=(LATENTS if codec else PIXELS) | net, **changes)
    r.sigmas = karras_sigmas(*LEVELS[1])
    return r

def one_run(name, seed, data, steps, parts):
    r, space = world(name, data, seed), WORLDS[name][0]
    start = time.process_time()
    curve = train_for(r, steps, 2e-2, tuple(v[:10] for v in data.held[space]), marks=1, out=parts / f'attention-{list(WORLDS).index(name)}-{seed}-{steps}.pt')
    out = dict(name=name, seed=seed, steps=steps, held_out=curve[-1]['held_out'], cpu_seconds=round(time.process_time() - start, 1),
               parameters=sum(p.numel() for p in r.world.parameters()), windows={})
    for r.window in WINDOWS: out['windows'][r.window] = examined(r, data.flights, 16)
    print(f"[{time.strftime('%H:%M')}] {name}, seed {seed}: {steps} steps, {out['cpu_seconds']:.0f} s, held out {out['held_out']:.4f}; near at 4/8/16 "
          + ', '.join(f'window {w}: ' + ' '.join(f"{mean_at(v, 'near', h):.2f}" for h in (4, 8, 16)) for w, v in out['windows'].items()), flush=True)
    return out

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=40.)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--data', default='runs/regimes')
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'attention.json'))
    p.add_argument('--only', nargs='+', default=list(WORLDS), choices=list(WORLDS))
    a = p.parse_args()
    torch.set_num_threads(1)
    data, parts = Data(a.data, 32), Path(a.data) / 'parts'
    seconds = kept(parts / 'attention-seconds.json', lambda: step_seconds({n: world(n, data, 0) for n in WORLDS}, 4))
    print({k: f'{1e3 * v:.0f} ms' for k, v in seconds.items()}, flush=True)
    path = lambda n, seed: parts / f'attention-{list(WORLDS).index(n)}-{seed}-{round(a.seconds / seconds[n])}.json'
    for seed in range(a.seeds):
        for n in a.only: kept(path(n, seed), lambda: one_run(n, seed, data, round(a.seconds / seconds[n]), parts))
    runs = [json.loads(path(n, seed).read_text()) for seed in range(a.seeds) for n in WORLDS if path(n, seed).exists()]
    write_atomic(Path(a.out), (json.dumps(dict(torch=torch.__version__, seconds=a.seconds, data=data.hash, flights_hash=data.flights.hash, step_seconds=seconds, runs=runs)) + '\n').encode())

if __name__ == '__main__': main()
