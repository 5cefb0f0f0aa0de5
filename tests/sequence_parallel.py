"""The frames of a sequence on several processes: loss and gradients are those of one, for both backbones.

python tests/sequence_parallel.py               two real processes (gloo)
python tests/sequence_parallel.py --processes 4 four

The simulation of 2, 4 and 8 ranks in one process is in the chapter 46_parallel.
"""
import argparse, multiprocessing, os, socket, sys, tempfile, traceback
from pathlib import Path
import torch
import torch.distributed as dist
from oniris.diffusion.edm import Denoiser
from oniris.nn.dit import DiT
from oniris.nn.unet import UNet
from oniris.training.parallel import SequenceGroup, checkpoint_activations_, sequence_parallel_

NETS = dict(unet=lambda: UNet(8, 3, 2, model_channels=16, channel_mult=(1, 2), video_attn=(4, 8), frame_attn=(4,), head_dim=4, kernel_t=3, window=5),
            dit=lambda: DiT(8, 3, 2, width=32, depth=2, heads=4),
            dit_factored=lambda: DiT(8, 3, 2, width=32, depth=2, heads=4, attention='factored'),
            unet_previous=lambda: UNet(8, 3, 2, out_channels=4, model_channels=16, channel_mult=(1, 2), video_attn=(4,), head_dim=4, kernel_t=3),
            dit_previous=lambda: DiT(8, 3, 2, out_channels=4, width=32, depth=2, heads=4)) # the frame before is an observation

def make(kind):
    torch.manual_seed(0)
    net = NETS[kind]()
    with torch.no_grad():
        for p in net.parameters(): p.add_(.1 * torch.randn_like(p)) # gates that are zero would hide mistakes
    return Denoiser(net, sigma_d=.7 if 'previous' in kind else None)

def clips(b=2, t=16):
    g = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    return draw(b, 2, t, 3, 8, 8), draw(b, 2, t).exp(), draw(b, t, 2), draw(b, t, 3, 8, 8)

def step(D, x, sigma, actions, target):
    weight = D.loss_weight(sigma[:, 1])[..., None, None, None] # the first of all frames has another one
    loss = (weight * (D(x, sigma, actions=actions)[:, 1] - target).square()).mean()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in D.named_parameters() if p.grad is not None}

def member(rank, world, port, out, kind, thrifty):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    try:
        dist.init_process_group('gloo')
        ranks, D = SequenceGroup(), make(kind)
        if thrifty: checkpoint_activations_(D)
        sequence_parallel_(D, ranks)
        x, sigma, actions, target = clips()
        loss, grads = step(D, ranks.mine(x, 2), ranks.mine(sigma, 2), ranks.mine(actions, 1), ranks.mine(target, 1))
        for v in (loss, *grads.values()):
            dist.all_reduce(v)
            v /= world
        if rank == 0: torch.save((loss, grads), out)
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)

def shared(kind, world, thrifty):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as tmp:
        out, context = Path(tmp)/'found.pt', multiprocessing.get_context('fork')
        members = [context.Process(target=member, args=(r, world, port, out, kind, thrifty)) for r in range(world)]
        for m in members: m.start()
        for m in members: m.join()
        if any(m.exitcode for m in members): sys.exit(f'{kind}: a process failed')
        return torch.load(out, weights_only=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--processes', type=int, default=2)
    a, ok = p.parse_args(), True
    torch.set_num_threads(1)
    for kind in NETS:
        loss, grads = step(make(kind), *clips())
        for thrifty in (False, True):
            other, theirs = shared(kind, a.processes, thrifty)
            largest = max(g.abs().max() for g in grads.values())
            off = max((theirs[n] - g).abs().max() for n, g in grads.items()) / largest
            ok &= set(theirs) == set(grads) and abs(other / loss - 1) < 1e-6 and off < 1e-6
            print(f"{kind:14s}{a.processes} processes{', activations computed twice' if thrifty else '':30s} "
                  f'loss {abs(other / loss - 1):.0e} apart, gradients {off:.0e} of the largest', flush=True)
    sys.exit(not ok)

if __name__ == '__main__': main()
