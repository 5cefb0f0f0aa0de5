"""Oniris beside the `video-diffusion-pytorch` package: training and generation in one run, on the same clips, at the same size.

python bench/against_unet3d.py [--rounds 5] [--env DIR] [--python python3.11]

Makes an environment of its own holding both (in DIR, kept and used again; a temporary one otherwise), and runs itself there on one thread.
`video-diffusion-pytorch` wants torchvision, and with it torch's CUDA build; what is measured here uses torchvision for nothing, so where it is not
installed an empty stand-in takes its place, and the CPU build of torch will do.

Measured: seconds of CPU time of one thread (a busy machine does not disturb that as much as it does the clock), the two packages taking turns.
  training    supervised frames a second: every frame of the batch is a target. Unet3D denoises a clip as a whole at one noise level;
              Oniris denoises each frame at a noise level of its own from the clean frames before it, for which it also evaluates the clean copy
  generation  seconds for a frame: Unet3D's sampler makes 1000 evaluations of a whole clip (a few are timed), and can make no further frame;
              Oniris makes 4 evaluations of one frame and one more to remember it, and goes on for as long as one likes
"""
import argparse, json, os, subprocess, sys, tempfile, time
from pathlib import Path
from unittest.mock import MagicMock

REPO = Path(__file__).resolve().parent.parent
TORCH, PACKAGE = 'torch==2.13.0', 'video-diffusion-pytorch==0.7.0'

def make_env(where, python):
    "An environment with Oniris and the package, the latter without torchvision and the text models it also lists"
    pip = [where/'bin'/'python', '-m', 'pip', 'install', '-q']
    if not (where/'bin'/'python').exists(): subprocess.run([python, '-m', 'venv', where], check=True)
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, REPO], check=True)
    subprocess.run([*pip, 'einops-exts', 'rotary-embedding-torch'], check=True)
    subprocess.run([*pip, '--no-deps', PACKAGE], check=True)

def cpu_seconds(f):
    t = time.process_time(); f()
    return time.process_time() - t

def measure(rounds, batch, length, size, dim, width):
    for name in ('torchvision', 'torchvision.transforms', 'torchvision.utils'): sys.modules.setdefault(name, MagicMock())
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(1)
    from video_diffusion_pytorch import GaussianDiffusion, Unet3D
    from oniris.core import generator
    from oniris.frames import from_uint8
    from oniris.games.lander import lander_clips
    from oniris.dream.dreamer import Dreamer
    from oniris.diffusion.edm import Denoiser
    from oniris.training.loss import TwoCopyLoss
    from oniris.nn.mp import bake, normalize_weights_
    from oniris.nn.unet import UNet

    clips = lander_clips()
    video, actions = from_uint8(clips['frames'][:batch, :length]), torch.as_tensor(clips['actions'][:batch, :length])
    video = F.interpolate(video.flatten(0, 1), (size, size), mode='area').unflatten(0, (batch, length)) # b t c h w in [-1, 1]

    torch.manual_seed(0)
    unet3d = Unet3D(dim=dim, dim_mults=(1, 2, 4), channels=3)
    theirs = GaussianDiffusion(unet3d, image_size=size, num_frames=length, timesteps=1000)
    ours = Denoiser(UNet(size, 3, actions.shape[-1], model_channels=width, channel_mult=(1, 2, 4), video_attn=(size // 4,), head_dim=width))
    loss, unit = TwoCopyLoss(), (video * .5 + .5).transpose(1, 2).contiguous() # theirs takes b c t h w in [0, 1]
    opts = [torch.optim.Adam(m.parameters(), lr=1e-4) for m in (unet3d, ours)]

    def their_step():
        theirs(unit).backward()
        opts[0].step(); opts[0].zero_grad()
    def our_step(k=iter(range(10 ** 9))):
        l, logs = loss(ours, video, actions, generator=generator(0, next(k)))
        l.backward(); opts[1].step(); opts[1].zero_grad()
        normalize_weights_(ours); loss.update(logs)

    frame = torch.randn(1, 3, length, size, size)
    def their_evaluation():
        with torch.inference_mode(): theirs.p_sample(frame, torch.full((1,), 500))
    baked = bake(ours)
    dreamer = Dreamer(baked, window=length, steps=4, seed=0).reset(video[:1, :4], actions[:1, :4])
    their_step(); our_step(); their_evaluation(); dreamer.step(actions[:1, 4])           # warm up
    seconds = {k: [] for k in ('their step', 'our step', 'their evaluation', 'our frame')}
    for _ in range(rounds):
        for name, f in {'their step': their_step, 'our step': our_step, 'their evaluation': their_evaluation,
                        'our frame': lambda: dreamer.step(actions[:1, 4])}.items(): seconds[name].append(cpu_seconds(f))
    middle = {k: sorted(v)[len(v) // 2] for k, v in seconds.items()}
    count = lambda m: sum(p.numel() for p in m.parameters()) / 1e6
    frames = batch * length
    print(json.dumps(dict(torch=torch.__version__, clips=f'{batch} of {length} frames of {size}x{size}', parameters={'Unet3D': f'{count(unet3d):.2f}M', 'Oniris': f'{count(ours):.2f}M'}, **{k: f'{v:.3f} s' for k, v in middle.items()})))
    rate, per = (frames / middle['their step'], frames / middle['our step']), (1000 * middle['their evaluation'] / length, middle['our frame'])
    print(f"{'':44s}{'Unet3D':>10s}{'Oniris':>10s}{'ratio':>8s}")
    print(f"{'training, supervised frames a second':44s}{rate[0]:10.2f}{rate[1]:10.2f}{rate[1] / rate[0]:7.1f}x")
    print(f"{'generation, seconds a frame':44s}{per[0]:10.2f}{per[1]:10.3f}{per[0] / per[1]:7.0f}x")
    print(f"{'generation, seconds an evaluation of a frame':44s}{middle['their evaluation'] / length:10.4f}{middle['our frame'] / 5:10.4f}{5 * middle['their evaluation'] / length / middle['our frame']:7.1f}x")

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--batch', type=int, default=4)
    p.add_argument('--length', type=int, default=8)
    p.add_argument('--size', type=int, default=32)
    p.add_argument('--dim', type=int, default=16, help="Unet3D's width")
    p.add_argument('--width', type=int, default=28, help="Oniris's width; the two defaults give about equally many parameters")
    p.add_argument('--env', type=Path, help='directory of the environment; kept')
    p.add_argument('--python', default=sys.executable)
    p.add_argument('--inside', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.inside: return measure(a.rounds, a.batch, a.length, a.size, a.dim, a.width)
    with tempfile.TemporaryDirectory() as tmp:
        env = (a.env or Path(tmp)/'env').resolve()
        make_env(env, a.python)
        command = [env/'bin'/'python', __file__, '--inside', *(f'--{k}={getattr(a, k)}' for k in ('rounds', 'batch', 'length', 'size', 'dim', 'width'))]
        subprocess.run(command, check=True, cwd=tmp, env={**os.environ, 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'})

if __name__ == '__main__': main()
