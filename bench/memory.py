"""What is remembered: a colour is shown, hidden for k frames and asked for again (nbs/95b_memory). Minutes on one thread.

    python bench/memory.py [--steps 350] [--seeds 3] [--out bench/results/memory.json]

Two copies whose attention looks back 2, 8 or 32 frames, and four stacked frames, trained on the same clips; then asked with gaps from 1 to 30, 32 questions each. The
network of window 32 is also asked with a cache of 8 and of 2 frames, with and without the first frames as sinks. Written after each training run; runs that are
there are not made again.
"""
import argparse, json, time
from pathlib import Path
import torch
from oniris.core import write_atomic
from oniris.recipes.memory import FRONT, recalled, remembering
from oniris.recipes.regimes import train_for

GAPS = 1, 2, 3, 4, 6, 8, 12, 16, 24, 30
WINDOWS = 8, 2, 32, 'stack'
CACHES = {'cache of 8': (8, 0), 'cache of 8 and a sink': (8, FRONT + 1), 'cache of 2 and a sink': (2, FRONT + 1)} # frames, sinks: the first patch is the last sink

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--steps', type=int, default=350)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'memory.json'))
    a = p.parse_args()
    torch.set_num_threads(1)
    out = Path(a.out)
    page = json.loads(out.read_text()) if out.exists() else dict(torch=torch.__version__, gaps=GAPS, steps=a.steps, runs=[])
    for seed in range(a.seeds):
        for window in WINDOWS:
            if any((r['window'], r['seed']) == (window, seed) for r in page['runs']): continue
            r, start = remembering(window, seed=seed), time.process_time()
            train_for(r, a.steps, 2e-2)
            row = dict(window=window, seed=seed, cpu_seconds=round(time.process_time() - start, 1), parameters=sum(v.numel() for v in r.world.parameters()))
            row['recalled'] = [recalled(r, k) for k in GAPS]
            for name, (r.window, r.sinks) in CACHES.items() if window == 32 else (): row[name] = [recalled(r, k) for k in GAPS]
            page['runs'].append(row)
            write_atomic(out, (json.dumps(page) + '\n').encode())
            print(time.strftime('[%H:%M]'), row, flush=True)

if __name__ == '__main__': main()
