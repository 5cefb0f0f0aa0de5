"""What group causality buys a video autoencoder: the same network with five temporal convolutions, equal parameters, equal CPU seconds, several seeds.

python bench/groups.py [--seconds 14] [--seeds 3] [--out bench/results/groups.json]

Frames of LunarLander, 32x32, recorded once; four by four pixels and 1, 2 or 4 frames become one latent of eight channels. The convolutions:
  group      group-causal, its own weights for each position in the group; its width is chosen so that it has as many parameters as the others
  group wide the same at the width of the others, with the parameters that this takes
  causal     each frame sees itself and the two before it
  shared     one kernel of three frames for all positions, which sees the next frame inside the group and nothing beyond it (as IV-VAE, 2411.06449)
  symmetric  one kernel of three frames over the whole clip: not causal, the ceiling for a kernel of that length. It is judged on clips as long as those it was
             trained on, for what looks ahead has never met the middle of a longer one; the others, which stream, on whole clips of 16.
A calibration counts the training steps that fit into the seconds, functions taking turns; then every seed makes that many.
Written for each run: PSNR of the held-out frames over all pixels, on the lander's, and by position in the group (over all pixels and on the lander).

python bench/groups.py --kinds symmetric   trains these kinds again, with the steps of the file, and replaces their runs
python bench/groups.py --costs             trains nothing: CPU seconds and bytes of each kind go into the file
"""
import argparse, json, math, platform, sys, tempfile, time
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
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tests'))
from counted_bytes import Bytes

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
        inside = torch.arange(y.shape[1], device=y.device) % self.group < self.group - 1
        return y * inside[:, None, None, None]

KINDS = {'group': GroupCausalConv, 'group wide': GroupCausalConv, 'causal': Causal, 'shared': Shared, 'symmetric': Symmetric}

def make(kind, stride, width, seed=0):
    times, spaces = LEVELS[stride]
    torch.manual_seed(seed)
    with patch('oniris.codec.blocks.GroupCausalConv', KINDS[kind]):
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
def judged(vae, test, length=None): # in pieces of so many frames, each by itself, if given
    if length: test = test.unflatten(1, (-1, length)).flatten(0, 1)
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
    scores = judged(vae.eval(), test, LENGTH if kind == 'symmetric' else None)
    return dict(kind=kind, stride=stride, seed=seed, width=width, parameters=size(vae), steps=steps, cpu_seconds=round(used, 2), **scores)

def peak(f):
    with Bytes() as count: f()
    return count.most

def streamed(vae, video, t): # in pieces of LENGTH that are made one by one, with the memory of the layers; what is decoded goes nowhere
    encoded, decoded = vae.new_cache(), vae.new_cache()
    for _ in range(t // LENGTH): vae.to_video(vae.to_latents(video(LENGTH), encoded), decoded)

def costs(kind, stride, width):
    """Without training: CPU seconds for 1,000 frames, there and back; MiB of a training step, and of whole and of streamed videos of 16, 64 and 256 frames.
    (Bytes are counted on tensors of shapes without numbers.)"""
    x, best = torch.randn(1, 16, 3, 32, 32).clamp(-1, 1), math.inf
    vae = make(kind, stride, width).eval()
    def there_and_back(x): vae.to_video(vae.to_latents(x))
    for _ in range(4):
        start = time.process_time()
        there_and_back(x)
        best = min(best, time.process_time() - start)
    mib = lambda b: round(b / 2 ** 20, 1)
    vae = vae.to('meta')
    video = lambda t: torch.empty(1, t, 3, 32, 32, device='meta')
    training = peak(lambda: F.mse_loss(vae.train().decode(vae.encode(video(LENGTH)))[0], video(LENGTH)).backward())
    vae.eval()
    whole = {t: mib(peak(lambda: there_and_back(video(t)))) for t in (16, 64, 256)}
    stream = {t: mib(peak(lambda: streamed(vae, video, t))) for t in (16, 64, 256)} if kind.startswith('group') else None
    return dict(kind=kind, stride=stride, width=width, seconds_per_1000=round(best / 16 * 1000, 2), training_mib=mib(training), whole_mib=whole,
                streamed_mib=stream)

def recorded(folder):
    path = record('LunarLander-v3', Path(folder)/'lander', clips=200, frames=16, size=32, skip=3, tail=4, per_episode=2, progress=False, workers=1)
    return (np.stack([clip['frames'] for clip in Clips(path, split)]) for split in ('train', 'test'))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=14.)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--out', default=str(Path(__file__).parent/'results'/'groups.json'))
    p.add_argument('--kinds', nargs='*', choices=KINDS, help='only these, into the file that is there')
    p.add_argument('--strides', nargs='*', type=int, default=list(LEVELS))
    p.add_argument('--costs', action='store_true')
    a = p.parse_args()
    torch.set_num_threads(1)
    out = Path(a.out)
    page = json.loads(out.read_text()) if a.costs or a.kinds else None
    def write():
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(page, indent=1) + '\n')
    if a.costs:
        page['costs'] = [costs(k, stride, width_for(k, stride)) for stride in LEVELS for k in KINDS if stride > 1]
        return write()
    with tempfile.TemporaryDirectory() as folder: frames, test = recorded(folder)
    test = from_uint8(test)
    if page is None: page = dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), seconds=a.seconds,
                                 train=list(frames.shape), test=list(test.shape), step_seconds={}, runs=[])
    for stride in a.strides:
        kinds = {k: width_for(k, stride) for k in a.kinds or KINDS if stride > 1 or k != 'group wide'}
        if not a.kinds: page['step_seconds'][str(stride)] = dict(zip(kinds, step_seconds([make(k, stride, w) for k, w in kinds.items()], frames)))
        clock = page['step_seconds'][str(stride)]
        for seed in range(a.seeds):
            for kind, width in kinds.items():
                row = run(kind, stride, width, seed, int(page['seconds'] / clock[kind]), frames, test)
                same = [(r['kind'], r['stride'], r['seed']) == (kind, stride, seed) for r in page['runs']]
                if any(same): page['runs'][same.index(True)] = row
                else: page['runs'].append(row)
                print(row, flush=True)
                write()

if __name__ == '__main__': main()
