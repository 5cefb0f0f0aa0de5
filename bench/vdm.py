"""The film model of nbs/16_vdm.ipynb, trained for longer than a chapter should: python bench/vdm.py OUT.pt [--seconds 480] [--dim 32] [--batch 16] [--lr 2e-3]

The functions are the chapter's own, taken from its cells. One thread. OUT.pt holds the weights in half precision and what it took.
scikit-learn's digits may also lie in runs/regimes/digits.npz, for a machine without scikit-learn.
"""
import argparse, importlib.machinery, json, math, sys, time, types
from pathlib import Path
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from einops import rearrange
from torch import nn
from oniris.diffusion.ddpm import GaussianDiffusion
from oniris.games.digits import CLASSES, DIRECTIONS, bouncing_digits
from oniris.nn.unet3d import Unet3D

try: import sklearn.datasets
except ImportError: # the digits' own importer gets what it asks for
    kept = np.load(ROOT / 'runs/regimes/digits.npz')
    found = types.SimpleNamespace(images=kept['images'].astype(float), target=kept['target'])
    for name in 'sklearn', 'sklearn.datasets':
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules['sklearn.datasets'].load_digits = lambda: found

def chapter():
    "films, make, train ... as the chapter defines them."
    cells = [''.join(c['source']) for c in json.loads((ROOT / 'nbs/16_vdm.ipynb').read_text())['cells'] if c['cell_type'] == 'code']
    def nothing(*a, **k): pass
    names = globals() | dict(test_eq=nothing, show_frames=nothing)
    for first in 'SIZE, SIDE', 'WORDS = ', 'def fold', 'def make': exec(next(c for c in cells if c.startswith(first)).split('quick = make')[0], names)
    return types.SimpleNamespace(**{k: names[k] for k in ('films', 'make', 'train')})

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('out', type=Path)
    p.add_argument('--seconds', type=float, default=480.)
    p.add_argument('--dim', type=int, default=32)
    p.add_argument('--batch', type=int, default=16)
    p.add_argument('--lr', type=float, default=2e-3)
    a = p.parse_args()
    torch.set_num_threads(1)
    its = chapter()
    model, start = its.make(a.dim), time.process_time()
    losses = its.train(model, a.seconds, a.batch, a.lr)
    how = dict(dim=a.dim, batch=a.batch, lr=a.lr, steps=len(losses), cpu_seconds=time.process_time() - start, loss=float(np.mean(losses[-100:])))
    a.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(weights={k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, how=how), a.out)
    print(how, flush=True)
