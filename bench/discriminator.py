"""Does a discriminator sharpen a lander? Decoders at 24 and 96 times fewer numbers, finished with and without one: equal processor seconds, several seeds.

python bench/discriminator.py [--seconds 40] [--finish 12] [--seeds 0 1 2] [--folder runs/discriminator] [--out bench/results/discriminator.json]

Frames of LunarLander, 64x64, recorded once. What is trained on are pieces of 32x32 of them, two of every clip: one with the lander in its middle, one anywhere. An
autoencoder (4 frames and 4x4 or 8x8 pixels to eight numbers) is trained for `seconds` with the default loss. Then its encoder is frozen, so that the latents stay what
they are, and each of the arms finishes the decoder for `finish` seconds from the same weights, with batches, noise and a discriminator of the seed's own:
  no more   not finished at all
  same      the default loss
  pair      and the pair discriminator, of which the decoder is told from a quarter of the steps on, with a fifth of the pull of all the rest
  features  and the distance in the features of a network that reads the lander's state off a frame (first seed only)
A calibration counts the steps that fit into the seconds, arms taking turns. Judged on held-out clips of whole frames: decibels; where the lander is and whether it is
found; and in the lander's window the energy of the differences between neighbouring pixels, as a part of the real ones' (sharpness: 1 is as sharp as the original), and
that of the difference between the two (slope error: 0 is right, 1 is what a plain grey area scores). Written after every run; a run that is there is not made again.
"""
import argparse, json, math, platform, tempfile, time
from functools import partial
from pathlib import Path
import numpy as np
import torch
from torch import nn
from oniris.codec.codec import psnr, video_batch
from oniris.codec.train_vae import train_vae
from oniris.codec.vae import VAE
from oniris.codec.vae_loss import Features, VAELoss
from oniris.core import generator, write_atomic
from oniris.data.clips import Clips
from oniris.data.record import record
from oniris.frames import from_uint8, to_uint8
from oniris.games.lander import lander_found, lander_position, lander_psnr, lander_window, position_error

SHAPE = dict(channels=(3, 32, 8), time_strides=(2, 2))
RATIOS = {'24x': dict(space_strides=(4, 1)), '96x': dict(space_strides=(4, 2))}
ARMS = dict(same={}, pair=dict(adversarial=.2), features=dict(perceptual=.1))
BATCH, LENGTH, PIECE = 1, 8, 32 # clips and frames of a step; side of what is trained on

def recorded(folder):
    "Frames and states, to train on and held out"
    path = Path(folder) / 'lander'
    if not (path / 'index.json').exists():
        record('LunarLander-v3', path, clips=200, frames=16, size=64, skip=3, tail=4, per_episode=2, progress=False, workers=1)
    both = [[clip for clip in Clips(path, split)] for split in ('train', 'test')]
    return [[np.stack([clip[k] for clip in clips]) for k in ('frames', 'states')] for clips in both]

def pieces(frames, rng):
    "Two of every clip: around the lander, if there is one, and anywhere"
    xy, score = lander_position(from_uint8(frames))
    out, most = [], frames.shape[2] - PIECE
    for clip, at, seen in zip(frames, xy * frames.shape[2], score > .4):
        around = at[seen].mean(0) - PIECE / 2 if seen.any() else torch.from_numpy(rng.uniform(0, most, 2))
        for x, y in around.clamp(0, most).long().tolist(), rng.integers(most + 1, size=2): out.append(clip[:, y:y + PIECE, x:x + PIECE])
    return np.stack(out)

def state_reader(frames, states, steps=300):
    "Three convolutions that have learned where the lander is and how it is turned; the squared error that is left, of which 1 is ignorance"
    torch.manual_seed(0)
    stages = nn.ModuleList([nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.SiLU()) for i, o, s in ((3, 16, 2), (16, 32, 2), (32, 32, 2))])
    reader = nn.Sequential(*stages, nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(32 * 16, 3))
    x, wanted = from_uint8(frames).flatten(0, 1), torch.from_numpy(states).float().flatten(0, 1)[:, [0, 1, 4]]
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    opt = torch.optim.Adam(reader.parameters(), 3e-3)
    errors = []
    for k in range(steps):
        at = torch.randint(len(x), (16,), generator=generator(0, k))
        loss = (reader(x[at]) - wanted[at]).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        errors.append(loss.item())
    return stages, float(np.mean(errors[-50:]))

def make(ratio, seed=0):
    torch.manual_seed(seed)
    return VAE(**SHAPE, **RATIOS[ratio])

def loss_of(arm, stages, steps, seed=0):
    "The arm's loss; of the discriminator the decoder is told from a quarter of the steps on"
    torch.manual_seed(seed)
    more = dict(ARMS.get(arm, {}))
    if 'perceptual' in more: more['features'] = Features(stages)
    if 'adversarial' in more: more |= dict(start=steps // 4, width=8)
    return VAELoss(**more)

def step_seconds(ratio, data, stages, rounds=10):
    "Processor seconds of a step of the first training and of each arm's; they take turns, and the least counts"
    best, made = dict.fromkeys(['begin', *ARMS], math.inf), {}
    for name in best:
        vae, loss = make(ratio), loss_of(name, stages, 0)
        vae.encoder.requires_grad_(name == 'begin')
        weights = [p for p in (*vae.parameters(), *loss.parameters()) if p.requires_grad]
        made[name] = vae, loss, torch.optim.AdamW(weights, 1e-5)
    for k in range(rounds):
        for name, (vae, loss, opt) in made.items():
            start = time.process_time()
            opt.zero_grad()
            loss(vae, video_batch(data, 0, k, BATCH, LENGTH), generator(0, k), step=k)[0].backward()
            opt.step()
            best[name] = min(best[name], time.process_time() - start)
    return best

def slopes(v): # `b t 3 h w` -> `b t 6 h w`
    "Differences to the pixel on the right and to the one below"
    return torch.cat([v.diff(dim=-1, append=v[..., -1:]), v.diff(dim=-2, append=v[..., -1:, :])], 2)

@torch.no_grad()
def judged(vae, real):
    y = torch.cat([vae.to_video(vae.to_latents(v)) for v in real.split(1)])
    here, energy = lander_window(real)[:, :, None], lambda s, where: float((s.square() * where).sum())
    sx, sy = slopes(real), slopes(y)
    return dict(all=psnr(y, real), lander=lander_psnr(real, y).nanmean().item(), error=position_error(real, y).nanmean().item(),
                found=lander_found(real, y).nanmean().item(), sharpness=energy(sy, here) / energy(sx, here),
                slope_error=energy(sy - sx, here) / energy(sx, here), elsewhere=energy(sy, ~here) / energy(sx, ~here)), y

def enlarged(real, y, side=20): # of the first flight whose lander is in view: `t side side 3` uint8
    "The pixels around the lander, every third frame"
    xy, score = lander_position(real)
    k = int((score > .8).float().mean(1).argmax())
    corner = ((xy[k] * real.shape[-1]).round().long() - side // 2).clamp(0, real.shape[-1] - side).tolist()
    return to_uint8(torch.stack([y[k, t, :, b:b + side, a:a + side] for t, (a, b) in list(enumerate(corner))[::3]]))

def trained(vae, data, steps, out, loss, lr, seed, frozen, held):
    start = time.process_time()
    result = train_vae(vae, data, steps, out, loss, BATCH, LENGTH, lr, seed=seed, held=held, pictures=10**9, frozen=frozen, bar=False, every=500)
    return round(time.process_time() - start, 1), result.get('averages', {})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=40.)
    p.add_argument('--finish', type=float, default=12.)
    p.add_argument('--seeds', type=int, nargs='*', default=[0, 1, 2])
    p.add_argument('--ratios', nargs='*', default=list(RATIOS), choices=list(RATIOS))
    p.add_argument('--folder', default='runs/discriminator')
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'discriminator.json'))
    a = p.parse_args()
    torch.set_num_threads(1)
    (frames, states), (test, _) = recorded(a.folder)
    data, real = pieces(frames, np.random.default_rng(0)), from_uint8(test)
    held, out = from_uint8(pieces(test, np.random.default_rng(0))[:8, :LENGTH]), Path(a.out)
    stages, left = state_reader(frames, states)
    page = dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), seconds=a.seconds, finish=a.finish, train=list(data.shape),
                test=list(real.shape), state_error=round(left, 3), step_seconds={}, runs=[])
    if out.exists(): page = json.loads(out.read_text())
    pictures = {k: v for k, v in np.load(out.with_suffix('.npz')).items()} if out.with_suffix('.npz').exists() else {}
    def keep(vae, **about):
        found, y = judged(vae.eval(), real)
        page['runs'].append(about | {k: round(v, 4) for k, v in found.items()})
        if about['seed'] == 0: pictures[f"{about['ratio']} {about['arm']}"] = enlarged(real, y)
        pictures['real'] = enlarged(real, real)
        np.savez_compressed(out.with_suffix('.npz'), **pictures)
        write_atomic(out, (json.dumps(page, indent=1) + '\n').encode())
        print(page['runs'][-1], flush=True)
    for ratio in a.ratios:
        if ratio not in page['step_seconds']: page['step_seconds'][ratio] = step_seconds(ratio, data, stages)
        clock, begun = page['step_seconds'][ratio], Path(a.folder) / ratio
        run = partial(trained, data=data, held=held)
        if not (begun / 'config.json').exists():
            steps = int(page['seconds'] / clock['begin'])
            vae = make(ratio)
            spent, _ = run(vae, steps=steps, out=begun, loss=VAELoss(), lr=4e-3, seed=0, frozen=False)
            keep(vae, ratio=ratio, seed=0, arm='no more', steps=steps, cpu_seconds=spent)
        for seed, arm in ((seed, arm) for seed in a.seeds for arm in ARMS if seed == 0 or arm != 'features'):
            if any((r['ratio'], r['seed'], r['arm']) == (ratio, seed, arm) for r in page['runs']): continue
            vae, steps = VAE.from_pretrained(begun).train(), int(page['finish'] / clock[arm])
            with tempfile.TemporaryDirectory() as folder:
                spent, _ = run(vae, steps=steps, out=Path(folder) / 'run', loss=loss_of(arm, stages, steps, seed), lr=1e-3, seed=seed + 1, frozen=True)
            keep(vae, ratio=ratio, seed=seed, arm=arm, steps=steps, cpu_seconds=spent)

if __name__ == '__main__': main()
