"""A training run small enough for tests: a world model of LunarLander's clips at 8x8 pixels, with everything a real run has.

python tests/small_run.py --out DIR --steps 12          alone
accelerate launch --cpu --num_processes 2 tests/small_run.py --out DIR --steps 12
"""
import argparse, json
import torch
import torch.nn.functional as F
from oniris.core import generator
from oniris.frames import from_uint8
from oniris.games.lander import lander_clips
from oniris.diffusion.edm import Denoiser
from oniris.training.ema import PowerEMA
from oniris.training.loss import LossNormalizer, TwoCopyLoss
from oniris.nn.mp import normalize_weights_
from oniris.training.train import train
from oniris.nn.unet import UNet

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--out', required=True, help='directory of the run')
p.add_argument('--steps', type=int, default=12)
p.add_argument('--every', type=int, default=4, help='steps between checkpoints')
p.add_argument('--batch', type=int, default=4, help='clips of the whole batch')
p.add_argument('--length', type=int, default=4, help='frames of a clip')
p.add_argument('--accumulate', type=int, default=1, help='parts of a batch that a process computes one after the other')
p.add_argument('--seed', type=int, default=0)
a = p.parse_args()
torch.set_num_threads(1)

clips = lander_clips()
frames = from_uint8(clips['frames'])
small = F.avg_pool2d(frames.flatten(0, 1), 8).unflatten(0, frames.shape[:2])
small, actions = (small - small.mean()) / small.std(), torch.as_tensor(clips['actions'])

torch.manual_seed(a.seed)
net = UNet(resolution=8, channels=3, action_dim=actions.shape[-1], model_channels=16, channel_mult=(1, 2), video_attn=(4,), head_dim=16)
model, loss = Denoiser(net), TwoCopyLoss(fit=LossNormalizer(history=256))

def loss_at(step, microbatch=(0, 1)):
    g, (i, n) = generator(a.seed, step, 'batch'), microbatch
    clip = torch.randint(len(small), (a.batch, 1), generator=g).chunk(n)[i]
    frame = torch.randint(small.shape[1] - a.length + 1, (a.batch, 1), generator=g).chunk(n)[i] + torch.arange(a.length)
    device = next(model.parameters()).device
    return loss(model, small[clip, frame].to(device), actions[clip, frame].to(device), generator=generator(a.seed, step, 'loss'), microbatch=microbatch)

def validate(step):
    x, act = small[:4, :a.length], actions[:4, :a.length]
    device = next(model.parameters()).device
    return {'loss': loss(model, x.to(device), act.to(device), generator=generator(a.seed, 0, 'held out'))[1]['loss']}

end = train(model, loss_at, a.steps, a.out, after_step=normalize_weights_, ema=PowerEMA(model), state={'fit': loss}, validate=validate,
            config=dict(steps=a.steps, batch=a.batch, length=a.length, seed=a.seed), every=a.every, keep=2, accumulate=a.accumulate, bar=False)
print(json.dumps(end), flush=True)
