"""A GPU without a GPU: every preset's training step, dreamed frame and codec step on CUDA tensors that have shapes, types and a device, but no numbers.

python tests/fake_gpu.py [--presets lander lander_4090] [--json FILE]

Nothing is computed, so this runs in a minute on a CPU. What it finds out:
  device   whatever meets a tensor of the other device raises, as it would on a card
  types    the network multiplies in half precision, the preconditioning is done in single precision
  waits    the places where the host waits for the card (`.item()`, a copy to the host, indexing with a mask), against a list of those that are meant
  memory   the peak of all storages alive at once, which PyTorch's allocator cannot undercut; the kernels' own workspaces are not in it
  products multiplications and additions of a step
FlexAttention has no fake kernel: attention is the grouped form, a card's fallback, by the memory-efficient kernel. A small library (fake_gpu.cpp), built with g++ in seconds, stands
for the driver; without a compiler there is nothing to run, and the exit status is 77.
"""
import argparse, contextlib, ctypes, importlib.util, json, os, shutil, subprocess, sys, tempfile, traceback, weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

HERE, NO_COMPILER = Path(__file__).resolve().parent, 77
CARD, RESERVE = 24 * 2 ** 30, 1.5 * 2 ** 30 # bytes of an RTX 4090; of those, what CUDA, the kernels' workspaces and fragments take

def build(folder):
    "Compiles the library and loads it after PyTorch's own and before `import torch`"
    compiler = shutil.which(os.environ.get('CXX', 'g++'))
    if compiler is None:
        print('fake_gpu: skipped, there is no C++ compiler')
        sys.exit(NO_COMPILER)
    root = Path(importlib.util.find_spec('torch').submodule_search_locations[0])
    library, include = Path(folder)/'libfake_gpu.so', root/'include'
    subprocess.run([compiler, '-shared', '-fPIC', '-O1', '-std=c++20', HERE/'fake_gpu.cpp', '-o', library, '-I', include,
                    '-I', include/'torch'/'csrc'/'api'/'include', '-L', root/'lib', '-lc10', '-ltorch_cpu'], check=True)
    for name in ('libtorch_global_deps.so', 'libc10.so', 'libtorch_cpu.so'): ctypes.CDLL(root/'lib'/name, mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder: build(folder)

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from oniris.codec.vae_loss import VAELoss
from oniris.core import generator
from oniris.dream import dreamer, graph
from oniris.nn import attention
from oniris.nn.mp import bake, normalize_weights_
from oniris.recipes.objective import WorldObjective
from oniris.recipes.presets import PRESETS, find_preset, make_codec, make_world
from oniris.training.ema import PowerEMA
from oniris.training.loss import TwoCopyLoss
from oniris.training.processes import SingleProcess
from oniris.training.train import Precision, _gradient, _put_together, guarded_step

class FakeCard(FakeTensorMode): avoid_device_init = True

SAYS = {'torch.cuda.is_available': lambda: True, 'torch.cuda.is_current_stream_capturing': lambda: False,
        'torch.cuda.get_device_capability': lambda *a: (8, 9), 'torch.cuda.current_device': lambda: 0, 'torch.cuda.device_count': lambda: 1,
        'torch.cuda.is_bf16_supported': lambda *a: True, 'torch.cuda.manual_seed': lambda seed: None, 'torch.Tensor.pin_memory': lambda tensor: tensor, 'torch.cuda.amp.common.amp_definitely_not_available': lambda: False}

def _tensors(x):
    if torch.is_tensor(x): yield x
    elif isinstance(x, (list, tuple)):
        for v in x: yield from _tensors(v)
    elif isinstance(x, dict): yield from _tensors(list(x.values()))

def _place():
    "The line of oniris that asked"
    inside = [f for f in traceback.extract_stack() if f'{os.sep}oniris{os.sep}' in f.filename]
    return f'{Path(inside[-1].filename).stem}.{inside[-1].name}' if inside else '?'

class Host(TorchDispatchMode):
    """What lies on the CPU is computed; what lies on the card has no numbers. Where the host asks for one it waits: that is written down, and it is told
    something plausible: that a mask is true everywhere, that a number is one."""
    device = 'cuda'
    def __init__(self):
        super().__init__()
        self.waits, self.products = Counter(), Counter()
        self.alive, self.now, self.peak, self.copied = {}, 0, 0, None

    def begin(self):
        "Count anew"
        self.waits, self.products, self.peak = Counter(), Counter(), self.now

    def end(self, f):
        "What was counted since"
        products = {str(k).removeprefix('torch.'): n for k, n in self.products.items()}
        return dict(gib=self.peak / 2 ** 30, waits=dict(self.waits), products=products)

    def wait(self, tensor):
        base = tensor._base if tensor._base is not None else tensor
        if self.copied is base: return # `tolist` asks for one number after the other, a card is waited for once
        self.copied = base
        self.waits[_place()] += 1

    def see(self, tensor):
        "Bytes of the storages on the card that are alive, and the most there ever were"
        storage = tensor.untyped_storage()
        if not tensor.is_cuda or storage._cdata in self.alive: return
        self.alive[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, storage._cdata)

    def free(self, key): self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        fake = [t for t in _tensors([args, kwargs]) if isinstance(t, FakeTensor)]
        if not fake and torch.device(kwargs.get('device') or 'cpu').type == 'cpu':
            with unset_fake_temporarily(): return f(*args, **kwargs)
        out = self.answer(f, fake, *args, **kwargs)
        for t in _tensors(out): self.see(t)
        return out

    def answer(self, f, fake, *args, **kwargs):
        aten = torch.ops.aten
        if f in (aten._local_scalar_dense.default, aten.item.default):
            self.wait(fake[0])
            return True if fake[0].dtype == torch.bool else 1. if fake[0].dtype.is_floating_point else 1
        if f is aten._to_copy.default and fake and torch.device(kwargs.get('device') or 'cuda').type == 'cpu':
            self.wait(fake[0])
            with unset_fake_temporarily(): return torch.ones(fake[0].shape, dtype=kwargs.get('dtype') or fake[0].dtype)
        if f in (aten.index.Tensor, aten.index_put_.default) and any(_is_mask(i) for i in args[1]):
            self.wait(next(i for i in args[1] if _is_mask(i)))
            args = args[0], [torch.arange(args[0].shape[k], device='cuda') if _is_mask(i) else i for k, i in enumerate(args[1])], *args[2:]
        if f in PRODUCTS: self.products[fake[0].dtype] += 1
        return f(*args, **kwargs)

def _is_mask(i): return torch.is_tensor(i) and i.dtype == torch.bool
PRODUCTS = [getattr(torch.ops.aten, name).default for name in ('mm', 'bmm', 'addmm', 'convolution')]

def _efficient_attention(q, k, v, attn_mask=None, dropout_p=0., is_causal=False, scale=None):
    "What `scaled_dot_product_attention` does on a card with a mask: under autocast in half precision, by a kernel that keeps no matrix of weights"
    if torch.is_autocast_enabled('cuda'): q, k, v = (u.to(torch.get_autocast_dtype('cuda')) for u in (q, k, v))
    bias = None
    if attn_mask is not None:
        bias = torch.zeros(attn_mask.shape, dtype=q.dtype, device=q.device).masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else attn_mask
        bias = F.pad(bias.to(q.dtype), (0, -bias.shape[-1] % 16))[..., :bias.shape[-1]].expand(*q.shape[:-1], k.shape[-2]) # rows begin at whole 16 numbers
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale)[0]

def _levels(levels, device):
    x, known = levels.to(device), levels.tolist()
    x.tolist = lambda: known
    return x

@contextlib.contextmanager
def fake_card():
    with contextlib.ExitStack() as stack:
        for name, answer in SAYS.items(): stack.enter_context(mock.patch(name, answer))
        stack.enter_context(mock.patch.object(attention, 'attend_flex', attention.attend_grouped))
        stack.enter_context(mock.patch.object(F, 'scaled_dot_product_attention', _efficient_attention))
        for module in (dreamer, graph): # noise levels that know their values: a tensor of a class of its own, which a fake one cannot become
            if hasattr(module, 'KnownLevels'): stack.enter_context(mock.patch.object(module, 'KnownLevels', _levels))
        stack.enter_context(FakeCard(allow_non_fake_inputs=True))
        yield stack.enter_context(Host())

# ---- what is run

FRAMES = dict(csgo_4090=(128, 256)) | dict.fromkeys(('lander', 'lander_refine', 'lander_4090'), (64, 64)) # 32x32 elsewhere
ACTIONS = dict(csgo_4090=51) # 4 elsewhere
MEANT = {('train', 'loss.__call__'), ('train', 'train._gradient'), # the loss is read, for the log and to see that it is finite
         ('train', 'train.guarded_step'), ('codec', 'train.guarded_step')} # the gradient's norm: is the step made?

class Clips(SimpleNamespace):
    "What a world needs to know of latents, and batches of them"
    def batch(self, size, length): return torch.randn(size, length, self.channels, *self.size), torch.randn(size, length, self.action_dim)

class Objective(WorldObjective):
    "With random clips; every step has a past of the world's own"
    def batch(self, step, microbatch):
        x, actions = self.clips.batch(self.train.batch // microbatch[1], self.train.length)
        return SimpleNamespace(to=lambda device: (x.to(device), actions.to(device), None))

def make(name, backbone):
    "Preset, codec, clips of its latents, world"
    preset = find_preset(name, net=dict(backbone=backbone), context=dict(self_context=1.), train=dict(image_rate=0.))
    codec, (h, w) = make_codec(preset), FRAMES.get(name, (32, 32))
    clips = Clips(size=(h // codec.factor, w // codec.factor), channels=codec.channels, action_dim=ACTIONS.get(name, 4), cond_dim=0)
    return preset, codec, clips, make_world(preset, clips)

def measured(host, f):
    "What `f()` did"
    host.begin()
    with FlopCounterMode(display=False) as flops: f()
    return dict(gflop=flops.get_total_flops() / 1e9, **host.end(f))

def lies_on_card(host, thing):
    "Every parameter and buffer, each of which is counted"
    for t in [*thing.parameters(), *thing.buffers()]:
        assert t.device.type == host.device, 'something was left on the CPU'
        host.see(t)

def _make_state(opt):
    "As after a first step"
    for p in opt.param_groups[0]['params']: p.grad = torch.zeros_like(p)
    opt.step()
    opt.zero_grad()

def training_step(host, preset, clips, world, dtype):
    world.to(host.device)
    loss, ema = TwoCopyLoss(preset.train.P_mean, preset.train.P_std, preset.context.sigma_ctx), PowerEMA(world)
    objective = Objective(world, loss, clips, preset)
    opt = torch.optim.AdamW(world.parameters(), betas=(.9, .99), weight_decay=0., fused=True)
    precision = Precision(dtype, torch.device(host.device))
    lies_on_card(host, world)
    for average in ema.averages:
        for v in average.values(): host.see(v)
    seen = []
    handle = world.net.register_forward_hook(lambda module, given, F_x: seen.append((given[0].dtype, given[1].dtype, F_x.dtype)))
    def step():
        parts = _gradient(SingleProcess(world), precision, objective, 0, preset.train.accumulate, 0)
        _, logs, _ = _put_together([(parts, None)])
        guarded_step(opt, 1e-2, 1., scaler=precision.scaler)
        normalize_weights_(world)
        loss.update(logs)
        ema.update(ema.step + 1)
    _make_state(opt)
    result = measured(host, step)
    assert all(p.grad is None for p in world.parameters())
    handle.remove()
    assert {types[:2] for types in seen} == {(torch.float32,) * 2}, 'the preconditioning is not in single precision'
    half = result.get('products', {}).get(str(dtype).removeprefix('torch.'), 99)
    assert half > 10, f'the network does not multiply in {dtype}'
    return result

def dream_step(host, preset, codec, clips, world, dtype):
    world, codec = bake(world).requires_grad_(False), codec.to(host.device).requires_grad_(False)
    given = dict(guidance=1.3) | preset.sampler.arguments() # what is not given is measured, at most with guidance
    dream = dreamer.Dreamer(world, codec, window=preset.net.window, amp=dtype, graph=False, **given)
    lies_on_card(host, world)
    lies_on_card(host, codec)
    h, w = (side * codec.factor for side in clips.size)
    b, past = 1, 2 * codec.time_stride
    dream.reset(torch.zeros(b, past, 3, h, w, device=host.device), torch.zeros(b, past, clips.action_dim, device=host.device))
    action = torch.zeros(b, dream.stride, clips.action_dim, device=host.device)
    def step():
        frames = dream.step(action if dream.stride > 1 else action[:, 0])
        assert frames.device.type == host.device and frames.dtype == torch.float32
    step()
    return measured(host, step)

def codec_step(host, preset, codec, clips, dtype):
    codec.train().requires_grad_(True)
    loss, spec = VAELoss(), preset.codec
    opt = torch.optim.AdamW(codec.parameters(), betas=(.9, .99), weight_decay=0., fused=True)
    precision = Precision(dtype, torch.device(host.device))
    if next(codec.parameters()).device.type != host.device: codec.to(host.device)
    lies_on_card(host, codec)
    h, w = (side * codec.factor for side in clips.size)
    def step():
        video = torch.zeros(spec.batch, spec.length, 3, h, w).to(host.device)
        with precision.autocast(): value, logs = loss(codec, video, generator(0), (0, 1))
        precision.backward(value)
        guarded_step(opt, 1e-2, 1., scaler=precision.scaler)
    _make_state(opt)
    return measured(host, step)

def run(name, backbone):
    "All steps of a preset, in both half precisions"
    with fake_card() as host:
        parameters, found = 0, {}
        for kind in ('float16', 'bfloat16'):
            dtype = getattr(torch, kind)
            preset, codec, clips, world = make(name, backbone)
            parameters = sum(p.numel() for p in world.parameters())
            found[f'train {kind}'] = training_step(host, preset, clips, world, dtype)
            if kind == 'bfloat16': continue # the other two steps are the same code in either
            found[f'dream {kind}'] = dream_step(host, preset, codec, clips, world, dtype)
            found[f'codec {kind}'] = codec_step(host, preset, codec, clips, dtype)
    return dict(preset=name, backbone=backbone, parameters=parameters, parts=preset.train.accumulate, steps=found)

def problems(result):
    "What a card would not stand, or would have to wait for"
    for name, step in result['steps'].items():
        if step['gib'] * 2 ** 30 > CARD - RESERVE: yield f"{name}: {step['gib']:.1f} GiB, and the card has {(CARD - RESERVE) / 2 ** 30:.1f} to give"
        for place, n in step['waits'].items():
            if (name.split()[0], place) not in MEANT: yield f'{name}: the host waits in {place} ({n} times)'

def show(result):
    for name, step in result['steps'].items():
        waits = ', '.join(f'{place} {n}' for place, n in step['waits'].items()) or 'none'
        print(f"{result['preset']:14s}{result['backbone']:6s}{name:16s}{result['parameters'] / 1e6:8.1f}M{step['gflop']:12.1f}{step['gib']:9.2f}   {waits}", flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--presets', nargs='*', default=list(PRESETS))
    p.add_argument('--json', type=Path, help='write what was found')
    a = p.parse_args()
    torch.set_num_threads(1)
    print(f"{'preset':14s}{'net':6s}{'step':16s}{'parameters':>9s}{'GFLOP':>12s}{'GiB':>9s}   where the host waits")
    results, wrong = [], []
    for name in a.presets:
        for backbone in ('unet', 'dit'):
            results.append(run(name, backbone))
            show(results[-1])
            wrong += [f'{name} {backbone} {said}' for said in problems(results[-1])]
    if a.json:
        had = json.loads(a.json.read_text())['presets'] if a.json.exists() else []
        kept = [r for r in had if r['preset'] in PRESETS and r['preset'] not in a.presets] # others' results stay
        a.json.write_text(json.dumps(dict(torch=torch.__version__, card_gib=CARD / 2 ** 30, presets=kept + results), indent=1))
    print(*wrong, sep='\n')
    sys.exit(bool(wrong))

if __name__ == '__main__': main()
