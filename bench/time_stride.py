"""A world on latents of two frames against one on latents of one: the demo's data, network and exam, equal processor seconds.

python bench/time_stride.py [--minutes 2] [--seeds 0] [--data runs/regimes] [--folder runs/time_stride] [--out bench/results/time_stride.json]

  one   the demo's codec: each frame 8x8 positions of 8 numbers; clips of 16 latents, attention over the last 12
  two   two frames 8x8 positions of 16 numbers, by a codec trained for as many processor seconds; four clips of 8 latents in place of two of 16, attention over the last 6:
        as many numbers a frame, as many latents in a step, the same memory in frames. The two actions of a latent lie side by side.
The data of `oniris_demo` are looked for in --data and made there if they are missing. `step_seconds` measures training steps of both in turns; the minutes are divided by
that. The exam is that of bench/regimes.py: flights that begin in mid-air, 8 frames shown, 32 dreamed, horizons in frames. Nothing is guided. Seconds of a dreamed frame
are of one sequence. Written after every run; a run that is there is not made again; one that was killed goes on.
"""
import argparse, json, math, platform, time
from pathlib import Path
import torch
from torch import nn
from flights import CONTEXT, flights
from regimes import HORIZONS, made, marks
from oniris.codec.codec import Codec, video_batch
from oniris.codec.latents import encode_clips
from oniris.codec.vae_loss import VAELoss
from oniris.core import generator, write_atomic
from oniris.data.clips import Clips
from oniris.dream.dreamer import Dreamer
from oniris.frames import from_uint8
from oniris.recipes.objective import WorldObjective
from oniris.recipes.presets import find_preset, make_codec, make_world, mirror_order
from oniris.recipes.train_world import fit_codec, train_world
from oniris.training.loss import TwoCopyLoss

PLAIN = dict(guidance=1.)
PRESETS = {'one': find_preset('lander_cpu', sampler=PLAIN), 'two': find_preset(
    'lander_cpu', sampler=PLAIN, codec=dict(channels=(3, 64, 16), time_strides=(2, 1), batch=4, length=2), net=dict(window=6), train=dict(batch=4, length=8))}

def least(steps, rounds): # name -> function of the round
    "Processor seconds of each; they take turns, and the least counts"
    best = dict.fromkeys(steps, math.inf)
    for k in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step(k)
            best[name] = min(best[name], time.process_time() - start)
    return best

def codec_step(preset, clips):
    vae, loss, spec = make_codec(preset), VAELoss(), preset.codec
    opt = torch.optim.AdamW(vae.parameters(), 1e-5)
    def step(k):
        opt.zero_grad()
        loss(vae, video_batch(clips, 0, k, spec.batch, spec.length), generator(0, k))[0].backward()
        opt.step()
    return step

def world_step(preset, latents):
    world = make_world(preset, latents)
    objective = WorldObjective(world, TwoCopyLoss(preset.train.P_mean, preset.train.P_std, preset.context.sigma_ctx), latents, preset)
    opt = torch.optim.AdamW(world.parameters(), 1e-5)
    def step(k):
        opt.zero_grad()
        objective(k)[0].backward()
        opt.step()
    return step

def prepared(name, data, folder, steps):
    "The codec and the latents, made if they are not there"
    if name == 'one': return Codec.from_pretrained(data / 'codec'), data / 'latents'
    preset, clips = PRESETS[name].change(codec=dict(steps=steps)), Clips(data / 'data')
    codec = fit_codec(preset, Clips(data / 'data', 'train'), folder / 'codec', bar=False)
    if not (folder / 'latents' / 'index.json').exists(): encode_clips(codec, clips, folder / 'latents', mirror_order(preset, clips), progress=False)
    return codec, folder / 'latents'

@torch.no_grad()
def examined(run, shown):
    real, actions = from_uint8(shown['frames'].numpy()), shown['actions']
    guess = Dreamer.from_run(run).reset(real[:, :CONTEXT], actions[:, :CONTEXT]).rollout(actions[:, CONTEXT:])
    return marks(real, guess) | dict(codec=marks(real, run.codec.to_video(run.codec.to_latents(real[:, CONTEXT:])))) | dict(seconds_per_frame=speed(run, real, actions))

def speed(run, real, actions, rounds=4):
    "Processor seconds of a dreamed frame of one sequence, the best of some"
    dreamer, best = Dreamer.from_run(run), math.inf
    for k in range(rounds):
        dreamer.reset(real[:1, :CONTEXT], actions[:1, :CONTEXT])
        start = time.process_time()
        dreamer.rollout(actions[:1, CONTEXT:])
        best = min(best, (time.process_time() - start) / (actions.shape[1] - CONTEXT))
    return best

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=2.)
    p.add_argument('--seeds', type=int, nargs='*', default=[0])
    p.add_argument('--data', default='runs/regimes')
    p.add_argument('--folder', default='runs/time_stride')
    p.add_argument('--out', default=str(Path(__file__).parent / 'results' / 'time_stride.json'))
    a = p.parse_args()
    torch.set_num_threads(1)
    data, folder, out = Path(a.data), Path(a.folder), Path(a.out)
    if not (data / 'latents').is_dir(): made(data)
    page = json.loads(out.read_text()) if out.exists() else dict(torch=torch.__version__, machine=platform.processor() or platform.machine(), minutes=a.minutes,
                                                               horizons=HORIZONS, context=CONTEXT, runs=[])
    def write(): write_atomic(out, (json.dumps(page) + '\n').encode())
    clips, steps = Clips(data / 'data', 'train'), PRESETS['one'].codec.steps
    if 'codec_step_seconds' not in page: page['codec_step_seconds'] = least({k: codec_step(v, clips) for k, v in PRESETS.items()}, 30)
    clock = page['codec_step_seconds']
    page['codec_steps'] = dict(one=steps, two=round(steps * clock['one'] / clock['two']))
    write()
    ready = {name: prepared(name, data, folder, page['codec_steps'][name]) for name in PRESETS}
    if 'step_seconds' not in page: page['step_seconds'] = least({k: world_step(v, Clips(ready[k][1], 'train')) for k, v in PRESETS.items()}, 12)
    write()
    shown = flights(48, 32, data)
    print({k: page[k] for k in ('codec_steps', 'step_seconds')}, flush=True)
    for seed in a.seeds:
        for name, preset in PRESETS.items():
            if any((r['name'], r['seed']) == (name, seed) for r in page['runs']): continue
            steps, start = round(60 * a.minutes / page['step_seconds'][name]), time.process_time()
            where = data / 'codec' if name == 'one' else folder / 'codec'
            run = train_world(ready[name][1], folder / f'{name}-{seed}', preset.change(train=dict(steps=steps)), codec=str(where), seed=seed, bar=False, every=400)
            spent = round(time.process_time() - start, 1)
            r = dict(name=name, seed=seed, steps=steps, cpu_seconds=spent, parameters=sum(p.numel() for p in run.denoiser.parameters()), exam=examined(run, shown))
            page['runs'].append(r)
            write()
            mean = lambda k, h: (lambda v: sum(v) / max(1, len(v)))([row[HORIZONS.index(h)] for row in r['exam'][k] if row[HORIZONS.index(h)] is not None])
            print(f"{name}, seed {seed}: {steps} steps, {spent} s; near at 8/16/32 {mean('near', 8):.2f} {mean('near', 16):.2f} {mean('near', 32):.2f}, dPSNR at 2/8/16/32 "
                  + ' '.join(f"{mean('delta', h):+.1f}" for h in (2, 8, 16, 32)) + f", outside {mean('outside', 16):.1f}; {1 / r['exam']['seconds_per_frame']:.0f} frames/s", flush=True)

if __name__ == '__main__': main()
