"""What bench/experiments.py tries and oniris does not have: each in a few lines, over the real objective."""
from pathlib import Path
import torch
import numpy as np
from torch import nn
from oniris.codec.codec import PatchPCA
from oniris.codec.latents import encode_clips
from oniris.core import seed_for
from oniris.data.clips import Clips
from oniris.diffusion.edm import Denoiser
from oniris.games.lander import MIRRORS, lander_on_screen
from oniris.recipes.objective import WorldObjective
from oniris.recipes.regenerate import RegeneratedPast
from oniris.training.loss import motion_weight

class Ungated(Denoiser):
    "The frame before as a second observation, and a gate that is always open."
    def _network(self, x, sigma, given):
        F_x = super()._network(x, sigma, given).clone()
        F_x[:, :, :, -1] = 9.
        return F_x

def gain(value):
    "The objective with another weight of moving places."
    class Gain(WorldObjective):
        def weight(self, past, step, microbatch): return motion_weight(past, value)
    return Gain

def late(kind, **attributes):
    "An objective whose past is real in the first half of the run."
    class Late(kind):
        total = 32 # steps of the run
        def past(self, x, actions, cond, step, microbatch):
            if step < self.total // 2: self.real = x
            return x if step < self.total // 2 else super().past(x, actions, cond, step, microbatch)
        def __call__(self, step, microbatch=(0, 1)):
            real = kind is RegeneratedPast and step < self.total // 2
            return WorldObjective.__call__(self, step, microbatch) if real else super().__call__(step, microbatch)
    for name, value in attributes.items(): setattr(Late, name, value)
    return Late

# ---- what the simulator knows
MIRRORED = torch.tensor([-1., 1, -1, 1, -1, -1, 1, 1]) # x, its speed, angle and its speed change their signs; the legs their places

def states_of(clips): # latents of a recording and of its mirror images -> (n t 8), from the recording beside them
    real = Clips(clips.path.parent / 'data', 'train')
    states = torch.from_numpy(np.stack([real[i]['states'] for i in range(len(real))]))
    mirrored = (states * MIRRORED)[..., [0, 1, 2, 3, 4, 5, 7, 6]]
    return torch.cat([states, mirrored])

class Told(WorldObjective):
    "Knows the simulator's states of the windows it is shown."
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.states = states_of(self.clips)

    def shown(self, step): # (b t 8)
        size, length = self.train.batch, self.train.length
        start = np.random.default_rng(seed_for(self.seed, step, 'start')).integers(0, self.clips.frames - length + 1, size) # as `Clips.stored_batch` draws it
        return torch.stack([self.states[i, s:s + length] for i, s in zip(self.clips.order(self.seed, step, size), start)])

class TrueMask(Told):
    "The weight of a place is doubled on average where the lander is, by the simulator, instead of where something has moved."
    def weight(self, past, step, microbatch):
        x, y = lander_on_screen(self.shown(step))[..., None, None].unbind(-3)
        h, w = past.shape[-2:]
        rows, columns = ((torch.arange(n) + .5) / n for n in (h, w))
        m = ((columns - x).abs() < .07 + .5 / w) & ((rows[:, None] - y).abs() < .08 + .5 / h)
        m = m.float()[:, :, None]
        mean = m.mean((-1, -2), keepdim=True)
        return 1 + torch.where(mean > 0, m / mean.clamp(min=1e-6), 0.)

class Head(nn.Module):
    "Features (n c h w) -> x, y, angle, legs: where they look is learned, and where that is belongs to what they see."
    def __init__(self, channels):
        super().__init__()
        self.look, self.tell = nn.Conv2d(channels, 8, 1), nn.Linear(8 * (channels + 2), 5)
    def forward(self, v):
        h, w = v.shape[-2:]
        place = torch.stack(torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing='ij')).expand(len(v), -1, -1, -1)
        look = self.look(v).flatten(2).softmax(-1)
        return self.tell(torch.einsum('nkp,ncp->nkc', look, torch.cat([v, place], 1).flatten(2)).flatten(1))

class StateHead(Told):
    "A head reads the simulator's state from the features of the noised copy; its squared error is added to the loss."
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.world.net.state_head = Head(self.world.net.conv_out.weight.shape[1])

    def __call__(self, step, microbatch=(0, 1)):
        seen = []
        hook = self.world.net.conv_out.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
        loss, logs = super().__call__(step, microbatch)
        hook.remove()
        b, t = self.train.batch, self.train.length
        noised = seen[-1].unflatten(0, (b, 2, t))[:, 1].flatten(0, 1) # the last pass is the loss's
        target = self.shown(step)[..., [0, 1, 4, 6, 7]].flatten(0, 1)
        return loss + (self.world.net.state_head(noised) - target).square().mean(), logs

class ErrorBank(WorldObjective):
    "Errors of the last predictions are kept and added to clean pasts, at next to no price (after SVI, 2510.09212)."
    size = 64
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bank = []
        self.world.register_forward_hook(lambda world, given, out: setattr(self, 'last', out.detach()) if out.shape[1] == 2 else None)

    def past(self, x, actions, cond, step, microbatch):
        g = self.draw(step, 'self-context')
        past = x.clone()
        for i in range(len(x)):
            if self.bank and torch.rand((), generator=g) < self.context.self_context:
                past[i, 1:] += self.bank[int(torch.randint(len(self.bank), (), generator=g))][1:x.shape[1]]
        self.real = x
        return past

    def __call__(self, step, microbatch=(0, 1)):
        loss, logs = super().__call__(step, microbatch)
        errors = (self.last[:, 1] - self.real) * (logs['sigma'] > 1.)[..., None, None, None] # at low noise there is no error to speak of
        self.bank = (self.bank + list(errors))[-self.size:]
        return loss, logs

# ---- optimizers
class Matrices:
    "An optimizer for the weights, as matrices that lie where the weights lie, and AdamW for the few numbers that are left."
    def __init__(self, world, make):
        self.pairs = [(p, nn.Parameter(p.detach().flatten(1))) for p in world.parameters() if p.ndim > 1]
        rest = [p for p in world.parameters() if p.ndim < 2]
        self.parts = [make([m for _, m in self.pairs]), torch.optim.AdamW(rest, betas=(.9, .99), weight_decay=0.)]
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self):
        for p, m in self.pairs: m.grad = p.grad.flatten(1)
        for part in self.parts: part.step()

def Muon(world):
    "torch's Muon: the momentum of a matrix made orthogonal (5 Newton-Schulz steps), at the size of AdamW's steps."
    return Matrices(world, lambda params: torch.optim.Muon(params, weight_decay=0., adjust_lr_fn='match_rms_adamw'))

class SoapMatrices(torch.optim.Optimizer):
    "Adam in the eigenbasis of Shampoo's preconditioners (2409.11321), one-sided where a side is longer than `most`."
    def __init__(self, params, betas=(.95, .95), every=10, most=256):
        super().__init__(params, dict(lr=0.))
        self.betas, self.every, self.most = betas, every, most

    def sides(self, G): return [G @ G.T if G.shape[0] <= self.most else None, G.T @ G if G.shape[1] <= self.most else None]

    def turned(self, G, Q, back=False):
        left, right = Q
        if left is not None: G = (left if back else left.T) @ G
        if right is not None: G = G @ (right.T if back else right)
        return G

    @torch.no_grad()
    def step(self):
        (b1, b2), group = self.betas, self.param_groups[0]
        for p in group['params']:
            G, s = p.grad, self.state[p]
            if not s: # the first gradient only says where the axes lie
                s |= dict(k=0, M=torch.zeros_like(G), V=torch.zeros_like(G), L=self.sides(G))
                s['Q'] = [None if m is None else torch.linalg.eigh(m)[1] for m in s['L']]
                continue
            s['k'] += 1
            s['M'].lerp_(G, 1 - b1)
            g = self.turned(G, s['Q'])
            s['V'].lerp_(g.square(), 1 - b2)
            m = self.turned(s['M'], s['Q']) / (1 - b1**s['k'])
            p.sub_(self.turned(m / ((s['V'] / (1 - b2**s['k'])).sqrt() + 1e-8), s['Q'], back=True), alpha=group['lr'])
            for old, new in zip(s['L'], self.sides(G)):
                if old is not None: old.lerp_(new, 1 - b2)
            if s['k'] % self.every == 0: s['Q'] = [None if q is None else torch.linalg.qr(m @ q)[0] for m, q in zip(s['L'], s['Q'])]

def Soap(world): return Matrices(world, SoapMatrices)

# ---- pixels
def patched(folder, side): # -> training clips, codec
    "The recording as patches of pixels, which lose nothing: 3 side^2 channels."
    codec, path = PatchPCA(side, 3 * side**2), Path(folder) / f'patches-{side}'
    if not (path / 'index.json').exists(): encode_clips(codec, Clips(Path(folder) / 'data'), path, MIRRORS['LunarLander-v3'], progress=False)
    return Clips(path, 'train'), codec.eval().requires_grad_(False)
