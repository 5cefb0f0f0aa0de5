"""What only a card can say: do the `cuda` cells run, is memory what the fake card counted, what do flex, graphs, half precision and compiling bring;
and with the minutes that are left, train `lander_4090` and score it. Everything goes into one JSON, part by part, so that an interruption loses nothing.

bench/gpu.sh [--minutes 60] [--out bench/gpu.json]     on a card
bench/gpu.sh --rehearse                                on a CPU, with a tiny preset
"""
import argparse, json, subprocess, sys, tempfile, time, traceback, warnings
from collections import Counter
from pathlib import Path
from unittest import mock
import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO/'tests'))
import fake_gpu
from oniris.dream.dreamer import Dreamer
from oniris.nn import attention
from oniris.nn.mp import bake
from oniris.training.train import Precision

class Card:
    "As `fake_gpu.Host`, on a real device"
    def __init__(self, device): self.device = device
    def see(self, tensor): pass
    def wait(self):
        if self.device == 'cuda': torch.cuda.synchronize()
    def begin(self):
        if self.device == 'cuda': torch.cuda.reset_peak_memory_stats()
    def end(self, f):
        "Peak memory of what has just run; then once more, for the places where the host waits and for the time"
        if self.device != 'cuda': return dict(gib=0., waits={}, seconds=self.seconds(f))
        gib = torch.cuda.max_memory_allocated() / 2 ** 30
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            torch.cuda.set_sync_debug_mode('warn')
            try: f()
            finally: torch.cuda.set_sync_debug_mode('default')
        places = Counter(f'{Path(w.filename).stem}:{w.lineno}' for w in said if 'synchroniz' in str(w.message))
        return dict(gib=gib, waits=dict(places), seconds=self.seconds(f))
    def seconds(self, f, repeat=3):
        "The least of a few"
        found = []
        for _ in range(repeat):
            self.wait(); start = time.perf_counter()
            f()
            self.wait(); found.append(time.perf_counter() - start)
        return min(found)

def about(card, a):
    "Who measured"
    found = dict(torch=torch.__version__, device=card.device, rehearsal=a.rehearse)
    if card.device == 'cuda': found |= dict(name=torch.cuda.get_device_name(), gib=torch.cuda.get_device_properties(0).total_memory / 2 ** 30)
    return found

def cells(card, a):
    "The cells that only a card can run"
    marked = [p for p in sorted((REPO/'nbs').glob('*.ipynb')) if '#| cuda' in p.read_text()]
    if card.device != 'cuda': return {p.name: 'not run' for p in marked}
    return {p.name: subprocess.run(['nbdev_test', '--path', p, '--flags', 'cuda'], cwd=REPO, capture_output=True).returncode == 0 for p in marked}

def steps(card, a):
    "Training, dreaming and compressing of each preset, as `tests/fake_gpu.py` counts them; first with the attention that it counts"
    found = {}
    for name in a.presets:
        preset, codec, clips, world = fake_gpu.make(name, 'unet')
        for kind in ('float16', 'bfloat16') if card.device == 'cuda' else ('bfloat16',):
            dtype = getattr(torch, kind)
            with mock.patch.object(attention, 'attend_flex', attention.attend_grouped):
                found[f'{name} train {kind} grouped'] = fake_gpu.training_step(card, preset, clips, world, dtype)
            found[f'{name} train {kind}'] = fake_gpu.training_step(card, preset, clips, world, dtype)
            found[f'{name} dream {kind}'] = fake_gpu.dream_step(card, preset, codec, clips, world, dtype)
            found[f'{name} codec {kind}'] = fake_gpu.codec_step(card, preset, codec, clips, dtype)
    return found

def flex(card, a):
    "Seconds of attention, forth and back, by implementation"
    found = {}
    for t, n in ((16, 64), (48, 64), (48, 256)) if card.device == 'cuda' else ((4, 16),):
        q, k, v = (torch.randn(2, 4, 2, t, n, 64, device=card.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        for name in ('attend_grouped', 'attend_flex') if card.device == 'cuda' else ('attend_grouped',):
            attend = getattr(attention, name)
            found[f'{name} {t} frames of {n}'] = card.seconds(lambda: attend(q, k, v).float().sum().backward())
    return found

def graphs(card, a):
    "Seconds of a dreamed latent, with and without a CUDA graph"
    found = {}
    for name in a.presets:
        preset, codec, clips, world = fake_gpu.make(name, 'unet')
        world = bake(world.to(card.device)).requires_grad_(False)
        for graph in (False, True) if card.device == 'cuda' else (False,):
            dream = Dreamer(world, None, window=preset.net.window, graph=graph, steps=4)
            dream.reset(torch.zeros(1, 2, clips.channels, *clips.size, device=card.device), torch.zeros(1, 2, clips.action_dim, device=card.device))
            action = torch.zeros(1, clips.action_dim, device=card.device)
            dream.step(action)
            found[f"{name} {'graph' if graph else 'eager'}"] = card.seconds(lambda: dream.step(action))
    return found

def compiled(card, a):
    "Seconds of the network forth and back, compiled and not; the first compiled call is not in it"
    if card.device != 'cuda': return {}
    found = {}
    for name in a.presets:
        preset, codec, clips, world = fake_gpu.make(name, 'unet')
        world, precision = world.to(card.device), Precision(torch.bfloat16, torch.device(card.device))
        b, t = preset.train.batch // preset.train.accumulate, preset.train.length
        x, sigma = torch.randn(b, 2, t, clips.channels, *clips.size, device=card.device), torch.ones(b, 2, t, device=card.device)
        actions = torch.zeros(b, t, clips.action_dim, device=card.device)
        def step():
            with precision.autocast(): loss = world(x, sigma, actions=actions).square().mean()
            precision.backward(loss)
        def gradients():
            world.zero_grad(set_to_none=True)
            step()
            return {k: p.grad.clone() for k, p in world.named_parameters() if p.grad is not None}
        for way in ('eager', 'compiled'):
            if way == 'compiled': world.compile()
            before, now = (None if way == 'eager' else now), gradients()
            found[f'{name} {way}'] = card.seconds(step)
        # torch 2.11 compiled an autograd function of ours into one without gradients, and nobody would have noticed
        off = {k: float((now[k] - v).norm() / v.norm().clamp(min=1e-12)) if k in now else 1. for k, v in before.items()}
        found[f'{name} gradients of compiled, off by at most'] = max(off.values())
    return found

def world(card, a):
    "Record, train for the minutes that are left, examine"
    runs = a.runs or Path(tempfile.mkdtemp())
    left = .2 if a.rehearse else max(1., a.minutes - (time.monotonic() - a.start) / 60 - 10) # ten for recording, codec and exam
    small = ['--clips', '16', '--frames', '16', '--size', '32', '--each', '2', '--workers', '1']
    record = small if a.rehearse else ['--clips', '2048', '--frames', '64', '--size', '64', '--each', '4']
    tiny = ['--steps', '4', '--codecsteps', '4', '--batch', '2', '--length', '8', '--every', '4']
    train = tiny if a.rehearse else ['--workers', '4', '--every', '1000']
    exam = ['--clips', '2', '--horizon', '4', '--seeds', '1', '--long', '0', '--fit', '4'] if a.rehearse else ['--clips', '32']
    for command in (['oniris_record', '--out', runs/'data', *record],
                    ['oniris_train', '--data', runs/'data', '--out', runs/'world', '--preset', a.presets[-1], '--minutes', f'{left:.1f}', *train],
                    ['oniris_evaluate', '--run', runs/'world', *exam]):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode: raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
    return dict(minutes=left, run=str(runs/'world'), evaluation=json.loads((runs/'world'/'evaluation'/'evaluation.json').read_text()))

PARTS = about, cells, steps, flex, graphs, compiled, world

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=60.)
    p.add_argument('--out', type=Path, default=REPO/'bench'/'gpu.json')
    p.add_argument('--runs', type=Path, help='directory of dataset and world; a temporary one if not given')
    p.add_argument('--rehearse', action='store_true', help='on the CPU, tiny')
    p.add_argument('--parts', nargs='*', default=[f.__name__ for f in PARTS], help='some of them only')
    a = p.parse_args()
    a.start, a.presets = time.monotonic(), ['lander_cpu'] if a.rehearse else ['lander', 'csgo_4090', 'lander_4090']
    if not a.rehearse and not torch.cuda.is_available(): sys.exit('bench/gpu.sh: expected a card; --rehearse goes without')
    if a.rehearse and a.out == p.get_default('out'): a.out = Path(tempfile.mkdtemp())/'gpu.json'
    card, found, failed = Card('cpu' if a.rehearse else 'cuda'), {}, []
    for part in PARTS:
        if part.__name__ not in a.parts: continue
        began = time.monotonic()
        try: found[part.__name__] = part(card, a)
        except Exception as e: # the other parts are still worth their minutes
            traceback.print_exc()
            found[part.__name__], failed = dict(error=f'{type(e).__name__}: {e}'), [*failed, part.__name__]
        print(f"{part.__name__}: {'FAILED' if part.__name__ in failed else 'done'} in {time.monotonic() - began:.0f} s", flush=True)
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(json.dumps(found, indent=1))
    print(f'{a.out}' + (f": failed: {', '.join(failed)}" if failed else ''))
    sys.exit(bool(failed))

if __name__ == '__main__': main()
