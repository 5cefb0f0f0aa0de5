"""What group causality buys a video autoencoder: the same network with five temporal convolutions, equal parameters, equal CPU seconds, several seeds.

python bench/groups.py [--seconds 14] [--seeds 3] [--out bench/results/groups.json]

Frames of LunarLander, 32x32, recorded once; four by four pixels and 1, 2 or 4 frames become one latent of eight channels. The convolutions:
  group      group-causal, its own weights for each position in the group; its width is chosen so that it has as many parameters as the others
  group wide the same at the width of the others, with the parameters that this takes
  causal     each frame sees itself and the two before it
  shared     one kernel of three frames for all positions, which sees the next frame inside the group and nothing beyond it (as IV-VAE, 2411.06449)
  symmetric  one kernel of three frames over the whole clip: not causal, meant as the ceiling for a kernel of that length. (Clips of 8 frames are trained on and
             of 16 judged, and what looks ahead has never met the middle of so long a clip: read its numbers with that.)
A calibration counts the training steps that fit into the seconds, functions taking turns; then every seed makes that many.
Written for each run: PSNR of the held-out frames over all pixels, on the lander's, and by position in the group (over all pixels and on the lander).
"""
import argparse, json, math, platform, tempfile, time
from pathlib import Path
from unittest.mock import patch
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from oniris.codec.groupconv import GroupCausalConv
from oniris.codec.vae import VAE
from oniris.codec.vae_loss import VAELoss
from oniris.core import generator
from oniris.data.clips import Clips
from oniris.data.record import record
from oniris.frames import frame_psnr, from_uint8
from oniris.training.train import cosine

WIDTH, LENGTH, LR = 48, 8, 4e-3 # of the hidden layers; frames of a training clip; highest learning rate
LEVELS = {1: ((1, 1), (4, 1)), 2: ((1, 2), (4, 1)), 4: ((1, 2, 2), (4, 1, 1))} # frames of a latent -> strides in time, in space, level by level

class ThreeFrames(nn.Module):
    "A convolution over three frames with one kernel for all positions, where `GroupCausalConv` would be"
    def __init__(self, c_in, c_out, group=1, kernel=3, kernel_t=None):
        super().__init__()
        self.c_in, self.group, self.kernel_t = c_in, group, 3
        self.own = nn.Conv2d(c_in, 3 * c_out, kernel, padding=kernel // 2, bias=False) # each frame's part of three outputs
        self.bias = nn.Parameter(torch.zeros(c_out))
        nn.init.normal_(self.own.weight, std=(3 * c_in * kernel ** 2) ** -.5)
        self.to(memory_format=torch.channels_last)

    def groups(self, x, state=None): # `b j (g c) h w`
        b, j = x.shape[:2]
        frames = x.unflatten(2, (self.group, self.c_in)).flatten(1, 2) # `b t c h w`
        parts = self.own(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).chunk(3, 2)
        y = sum(self.shifted(part, lag) for part, lag in zip(parts, self.lags)) + self.bias[:, None, None]
        return y.unflatten(1, (j, self.group)).flatten(2, 3)

    def shifted(self, part, lag): # what frame i hears from frame i - lag
        t = part.shape[1]
        if lag >= 0: return F.pad(part[:, :t - lag], (0, 0) * 3 + (lag, 0))
        return F.pad(part[:, -lag:], (0, 0) * 3 + (0, -lag))

class Causal(ThreeFrames): lags = 2, 1, 0
class Symmetric(ThreeFrames): lags = 1, 0, -1
class Shared(Symmetric):
    "As `Symmetric`, but the last frame of a group hears nothing of the next group"
    def shifted(self, part, lag):
        y = super().shifted(part, lag)
        if lag >= 0: return y
        inside = torch.arange(y.shape[1]) % self.group < self.group - 1
        return y * inside[:, None, None, None]

KINDS = {'group': GroupCausalConv, 'group wide': GroupCausalConv, 'causal': Causal, 'shared': Shared, 'symmetric': Symmetric}

def make(kind, stride, width, seed=0):
    times, spaces = LEVELS[stride]
    torch.manual_seed(seed)
    with patch('oniris.codec.vae.GroupCausalConv', KINDS[kind]):
        return VAE((3, *[width] * (len(times) - 1), 8), times, spaces, 1)

def size(vae): return sum(p.numel() for p in vae.parameters())

def width_for(kind, stride):
    "The width at which this kind has as many parameters as the causal one at `WIDTH`"
    if kind != 'group': return WIDTH
    goal = size(make('causal', stride, WIDTH))
    return min(range(8, 2 * WIDTH), key=lambda w: abs(size(make(kind, stride, w)) - goal))

def batch(frames, seed, step):
    rng = np.random.default_rng((seed, step))
    clip, start, flip = rng.integers(len(frames)), rng.integers(frames.shape[1] - LENGTH + 1), rng.random() < .5
    x = from_uint8(frames[clip, start:start + LENGTH])[None]
    return x.flip(-1) if flip else x

def train_step(vae, loss, opt, x, g):
    value, _ = loss(vae, x, g)
    opt.zero_grad()
    value.backward()
    nn.utils.clip_grad_norm_(vae.parameters(), 1.)
    opt.step()

def step_seconds(vaes, frames, rounds=12):
    "CPU seconds of a training step of each; they take turns, and the least counts"
    loss, best = VAELoss(logvar_weight=0.), [math.inf] * len(vaes)
    opts = [torch.optim.AdamW(v.parameters(), 1e-4) for v in vaes]
    for k in range(rounds):
        for i, (vae, opt) in enumerate(zip(vaes, opts)):
            start = time.process_time()
            train_step(vae, loss, opt, batch(frames, 0, k), generator(0, k))
            best[i] = min(best[i], time.process_time() - start)
    return best

def lander_pixels(video):
    r, g, b = (127.5 * video).unbind(-3)
    return b - (r + g) / 2 > 18

def pooled(real, guess, mask=None):
    "PSNR of all frames as if they were one"
    one = lambda v: v.movedim(-3, 0).flatten(1)[:, None]
    return round(float(frame_psnr(one(real), one(guess), None if mask is None else mask.flatten()[None])), 3)

@torch.no_grad()
def judged(vae, test):
    y, p, mask = vae.to_video(vae.to_latents(test)), vae.time_stride, lander_pixels(test)
    at = [slice(i, None, p) for i in range(p)]
    return dict(all=pooled(test, y), lander=pooled(test, y, mask), by_position=[pooled(test[:, i], y[:, i]) for i in at],
                lander_by_position=[pooled(test[:, i], y[:, i], mask[:, i]) for i in at])

def run(kind, stride, width, seed, steps, frames, test):
    vae, loss, start = make(kind, stride, width, seed), VAELoss(logvar_weight=0.), time.process_time()
    opt = torch.optim.AdamW(vae.parameters(), LR, betas=(.9, .99), weight_decay=0)
    for k in range(steps):
        opt.param_groups[0]['lr'] = cosine(k, steps, LR)
        train_step(vae, loss, opt, batch(frames, seed, k), generator(seed, k, 'noise'))
    used = time.process_time() - start
    return dict(kind=kind, stride=stride, seed=seed, width=width, parameters=size(vae), steps=steps, cpu_seconds=round(used, 2), **judged(vae.eval(), test))

def recorded(folder):
    path = record('LunarLander-v3', Path(folder)/'lander', clips=200, frames=16, size=32, skip=3, tail=4, per_episode=2, progress=False, workers=1)
    return (np.stack([clip['frames'] for clip in Clips(path, split)]) for split in ('train', 'test'))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=14.)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'groups.json'))
    a = p.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder: frames, test = recorded(folder)
    test = from_uint8(test)
    rows, clock = [], {}
    for stride in LEVELS:
        kinds = {k: width_for(k, stride) for k in KINDS if stride > 1 or k != 'group wide'}
        clock[stride] = dict(zip(kinds, step_seconds([make(k, stride, w) for k, w in kinds.items()], frames)))
        for seed in range(a.seeds):
            for kind, width in kinds.items():
                rows.append(run(kind, stride, width, seed, int(a.seconds / clock[stride][kind]), frames, test))
                print(rows[-1], flush=True)
                page = dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), seconds=a.seconds,
                            train=list(frames.shape), test=list(test.shape), step_seconds=clock, runs=rows)
                Path(a.out).parent.mkdir(parents=True, exist_ok=True)
                Path(a.out).write_text(json.dumps(page, indent=1) + '\n')

if __name__ == '__main__': main()
