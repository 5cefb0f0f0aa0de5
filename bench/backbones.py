"""U-Net and transformer at equal processor seconds: the worlds of `lander_cpu` and `lander_dit` on the demo's recording.

    python bench/backbones.py [--seconds 45] [--seeds 1] [--data runs/regimes] [--out bench/results/backbones.json]

Data, codec and latents are the demo's; they are looked for in --data (of `oniris_demo` or bench/regimes.py) and made there if they are missing. One thread.
Every world trains by its preset (batch, length, rate, past of its own) until its processor seconds are over, the rate along half a cosine of what is spent; the
better of the two averages counts. Then its held-out loss, and 16 flights that begin in mid-air (bench/flights.py). Results are written after every run; a run
that is there is not made again. --rates A,B trains each world so long at each rate, prints held-out losses and writes nothing.
"""
import argparse, json, platform, time
from pathlib import Path
import torch
from torch.utils.flop_counter import FlopCounterMode
from flights import CONTEXT, flights
from regimes import made
from oniris.codec.codec import Codec
from oniris.core import write_atomic
from oniris.data.clips import Clips
from oniris.dream.dreamer import Dreamer
from oniris.evaluation.metrics import frame_psnr
from oniris.frames import from_uint8
from oniris.games.lander import lander_near, outside_psnr, position_error
from oniris.nn.mp import bake, normalize_weights_
from oniris.recipes.objective import WorldObjective
from oniris.recipes.presets import cost, find_preset, make_world
from oniris.recipes.train_world import choose_average
from oniris.training.ema import PowerEMA
from oniris.training.loss import TwoCopyLoss
from oniris.training.train import cosine

HORIZONS = 1, 8, 16, 24, 32
ASKED = dict(near=lander_near, error=position_error, outside=outside_psnr, psnr=frame_psnr)
WORLDS = {'U-Net': ('lander_cpu', {}), 'DiT, full': ('lander_dit', {}), 'DiT, factored': ('lander_dit', dict(attention='factored'))}

def world_of(name, latents, net=None):
    preset, changes = WORLDS[name]
    preset = find_preset(preset, net=changes | (net or {}))
    return preset, make_world(preset, latents)

def trained(name, folder, seconds, seed, rate=None, net=None):
    "A world after so many processor seconds of training, and what it took."
    learn, held = (Clips(folder / 'latents', split) for split in ('train', 'test'))
    torch.manual_seed(seed)
    preset, world = world_of(name, learn, net)
    loss, ema, peak = TwoCopyLoss(preset.train.P_mean, preset.train.P_std, preset.context.sigma_ctx), PowerEMA(world), rate or preset.train.lr
    objective = WorldObjective(world, loss, learn, preset, seed)
    opt = torch.optim.AdamW(world.parameters(), betas=(.9, .99), weight_decay=0.)
    start, steps, spent = time.process_time(), 0, 0.
    world.train()
    while spent < seconds:
        value, logs = objective(steps)
        value.backward()
        torch.nn.utils.clip_grad_norm_(world.parameters(), 1.)
        opt.param_groups[0]['lr'] = peak * min(1, (steps + 1) / 50) * cosine(spent, seconds, 1., 1)
        opt.step(); opt.zero_grad(set_to_none=True)
        steps += 1
        normalize_weights_(world); loss.update(logs); ema.update(steps)
        spent = time.process_time() - start
    world.eval()
    averages = choose_average(ema, world, loss, held, preset)
    return world, preset, dict(steps=steps, cpu_seconds=round(spent, 1), held_out=min(averages.values()))

@torch.no_grad()
def measured(world, preset):
    "What an evaluation and a training step cost."
    config, (h, w) = world.net.config, world.net.resolution
    cache, one = world.new_cache(1, preset.net.window), torch.zeros(1, 1, 1, config['channels'], h, w)
    with FlopCounterMode(display=False) as f: world(one, torch.ones(1, 1, 1), torch.zeros(1, 1, config['action_dim']), cache)
    c = cost(world, 1, preset.train.length)
    return dict(parameters=c['parameters'], gflop_evaluation=f.get_total_flops() / 1e9, gflop_train=2 * c['gmac'])

@torch.no_grad()
def examined(world, preset, codec, flown):
    "Metric -> mean over the flights at each horizon, where there is a lander; dreamed frames a second of one sequence."
    real, actions = from_uint8(flown['frames'].numpy()), flown['actions']
    dreamer = Dreamer(bake(world), codec, window=preset.net.window, **preset.sampler.arguments())
    guess = dreamer.reset(real[:, :CONTEXT], actions[:, :CONTEXT]).rollout(actions[:, CONTEXT:])
    at = torch.tensor(HORIZONS) - 1
    out = {k: f(real[:, CONTEXT:][:, at], guess[:, at]).nanmean(0).tolist() for k, f in ASKED.items()}
    dreamer.reset(real[:1, :CONTEXT], actions[:1, :CONTEXT])
    start = time.process_time()
    dreamer.rollout(actions[:1, CONTEXT:])
    return out | dict(frames_a_second=(actions.shape[1] - CONTEXT) / (time.process_time() - start))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--seconds', type=float, default=45.)
    p.add_argument('--seeds', type=int, default=1)
    p.add_argument('--data', type=Path, default=Path('runs/regimes'))
    p.add_argument('--out', type=Path, default=Path(__file__).parent / 'results/backbones.json')
    p.add_argument('--only', nargs='*', default=list(WORLDS))
    p.add_argument('--rates', default='')
    p.add_argument('--net', type=json.loads, default={}, help='JSON: fields of the network to change')
    a = p.parse_args()
    torch.set_num_threads(1)
    if not (a.data / 'latents').is_dir(): made(a.data)
    if a.rates:
        for name in a.only:
            for rate in map(float, a.rates.split(',')):
                world, preset, how = trained(name, a.data, a.seconds, 100, rate, a.net)
                print(name, a.net, f'rate {rate:g}:', how | measured(world, preset), flush=True)
        raise SystemExit
    codec = Codec.from_pretrained(a.data / 'codec').eval().requires_grad_(False)
    flown = {k: v[:16] for k, v in flights(48, 32, a.data).items()}
    page = json.loads(a.out.read_text()) if a.out.exists() else dict(machine=platform.processor(), horizons=HORIZONS, seconds=a.seconds, runs=[])
    for seed in range(a.seeds):
        for name in a.only:
            if any((r['name'], r['seed'], r['seconds']) == (name, seed, a.seconds) for r in page['runs']): continue
            world, preset, how = trained(name, a.data, a.seconds, seed)
            page['runs'].append(dict(name=name, seed=seed, seconds=a.seconds) | how | measured(world, preset) | examined(world, preset, codec, flown))
            write_atomic(a.out, json.dumps(page, indent=1).encode())
            print({k: v for k, v in page['runs'][-1].items()}, flush=True)
