"""Two packages from PyPI as world models: the clips, the latents, the seconds and the exam of bench/regimes.py.

    python bench/against_peers.py [--minutes 2] [--seeds 1] [--flights 8] [--data runs/regimes] [--out bench/results/peers.json]

`video-diffusion-pytorch` 0.7.0: Unet3D denoises a clip of 16 frames as a whole at one noise level (DDPM of 1000 steps). It is told the actions of the clip as its condition,
  which its authors mean for sentences, and goes on as `WholeVideo` does: half of the window is replaced by what is known. 16 steps of DDIM, written here, since its own
  sampler evaluates a thousand times and takes no past.
`dreamer4` 0.20.2: a transformer over the frames' tokens, axial in space and time, trained by shortcut forcing on one noised copy: `DynamicsWorldModel` as it comes, without
  rewards or agent. An action belongs to the frame that it follows there, to the frame that it leads to here. Its own sampler, 4 steps a frame.

Both learn the latents of the demo's codec, as the regimes do: what is compared is how a world is learned, not how frames are compressed. The rate is the better of three in
short runs. Packages are put into a folder of their own (--packages) without what they list, of which only a part is needed; torchvision, torchaudio and cv2 are stand-ins.
Seconds are processor seconds of one thread.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path
from unittest.mock import MagicMock

REPO = Path(__file__).resolve().parent.parent
PACKAGES = '''video-diffusion-pytorch==0.7.0 einops-exts rotary-embedding-torch dreamer4==0.20.2 adam-atan2-pytorch assoc-scan beartype discrete-continuous-embed-readout einx
    ema-pytorch env-ssl-wrapper fire frozendict h-net-dynamic-chunking hl-gauss-pytorch imageio loguru mean-conc-beta memmap-replay-buffer pope-pytorch rich torch-einops-utils
    tqdm vector-quantize-pytorch vit-pytorch x-mlps-pytorch x-transformers einops'''.split()
ABSENT = [f'torchvision{s}' for s in ('', '.transforms', '.transforms.functional', '.utils', '.models', '.io', '.datasets', '.ops')] + ['torchaudio', 'torchaudio.transforms', 'cv2']
RATES = 3e-4, 1e-3, 3e-3

def window_of(x, actions, batch, length, g):
    import torch
    which = torch.randint(len(x), (batch,), generator=g)
    at = torch.randint(x.shape[1] - length + 1, (batch,), generator=g)[:, None] + torch.arange(length)
    return x[which[:, None], at], actions[which[:, None], at]

class Unet3DWorld:
    batch, length, known, steps = 2, 16, 8, 16
    def __init__(self, channels, size, actions):
        from video_diffusion_pytorch import GaussianDiffusion, Unet3D
        net = Unet3D(dim=20, dim_mults=(1, 2, 4), channels=channels, cond_dim=actions * self.length)
        self.net = GaussianDiffusion(net, image_size=size, num_frames=self.length, channels=channels, timesteps=1000)

    def loss(self, x, actions):
        return self.net((x * .5 + .5).transpose(1, 2), cond=actions.flatten(1)) # it makes 2 x - 1 of that

    def dream(self, z, actions):
        import torch
        t, total, a_bar = z.shape[1], actions.shape[1], self.net.alphas_cumprod
        times = torch.linspace(999, 0, self.steps + 1).round().long()
        while z.shape[1] < total:
            at = z.shape[1] - self.known
            a = actions[:, at:at + self.length]
            a = torch.cat([a, a[:, -1:].expand(-1, self.length - a.shape[1], -1)], 1).flatten(1)
            past = z[:, at:].transpose(1, 2)
            x = torch.randn(len(z), z.shape[2], self.length, *z.shape[3:])
            for k, step in enumerate(times.tolist()):
                now = a_bar[step]
                x[:, :, :self.known] = now.sqrt() * past + (1 - now).sqrt() * torch.randn_like(past)
                noise = self.net.denoise_fn(x, torch.full((len(z),), step), cond=a)
                clean = ((x - (1 - now).sqrt() * noise) / now.sqrt()).clamp(-4, 4)
                after = a_bar[times[k + 1]] if k < self.steps else torch.ones(())
                x = after.sqrt() * clean + (1 - after).sqrt() * noise
            z = torch.cat([z, x[:, :, self.known:].transpose(1, 2)], 1)
        return z[:, t:total]

class Dreamer4World:
    batch, length = 2, 16
    def __init__(self, channels, size, actions):
        from dreamer4 import DynamicsWorldModel
        tokens, self.size = size * size, size
        self.net = DynamicsWorldModel(dim=96, dim_latent=channels, num_latent_tokens=tokens, num_spatial_tokens=tokens, num_register_tokens=2, depth=4, time_block_every=2,
                                      attn_heads=4, attn_dim_head=32, num_discrete_actions=actions, multi_token_pred_len=1, predict_terminals=False)

    def tokens(self, z): return z.flatten(3).transpose(2, 3) # b t c h w -> b t (h w) c

    def keys(self, actions): # of each frame, the one that leads to the next
        import torch
        keys = actions.argmax(-1, keepdim=True)
        return torch.cat([keys[:, 1:], keys[:, -1:]], 1)

    def loss(self, x, actions):
        return self.net(latents=self.tokens(x), discrete_actions=self.keys(actions), add_autoregressive_action_loss=False)

    def dream(self, z, actions):
        out = self.net.generate(actions.shape[1], num_steps=4, batch_size=len(z), prompt_latents=self.tokens(z), prompt_discrete_actions=self.keys(actions),
                                return_decoded_video=False, store_agent_embed=False, store_old_action_unembeds=False)
        return out.transpose(2, 3).unflatten(3, (self.size, self.size))[:, z.shape[1]:]

WORLDS = {'video-diffusion-pytorch, Unet3D': Unet3DWorld, 'dreamer4, DynamicsWorldModel': Dreamer4World}

def trained(kind, data, seconds, lr, seed):
    "Adam along half a cosine for that many processor seconds -> world, steps, mean loss of the last tenth"
    import torch
    from oniris.core import generator
    from oniris.training.train import cosine
    x, actions = data.train['latents']
    torch.manual_seed(seed)
    world, losses, start, left = kind(x.shape[2], x.shape[3], actions.shape[2]), [], time.process_time(), 0.
    opt = torch.optim.AdamW(world.net.parameters(), lr, betas=(.9, .99), weight_decay=0.)
    while not losses or (left := (time.process_time() - start) / seconds) < 1:
        loss = world.loss(*window_of(x, actions, world.batch, world.length, generator(seed, len(losses), 'windows')))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(world.net.parameters(), 1.)
        opt.param_groups[0]['lr'] = cosine(round(1000 * left), 1000, lr, 50)
        opt.step()
        opt.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    world.net.eval()
    last = losses[-max(1, len(losses) // 10):]
    return world, len(losses), sum(last) / len(last)

def one_world(name, data, seconds, seed, flights, frames=16):
    import torch
    from regimes import CONTEXT, HORIZONS, marks, mean_at
    asked = [h for h in HORIZONS if h <= frames]
    losses = {lr: trained(WORLDS[name], data, seconds / 10, lr, 100)[2] for lr in RATES}
    lr = min(losses, key=losses.get)
    world, steps, loss = trained(WORLDS[name], data, seconds, lr, seed)
    real, actions = data.flights.video[:flights], data.flights.actions[:flights, :CONTEXT + frames]
    with torch.no_grad():
        start = time.process_time()
        z = world.dream(data.codec.to_latents(real[:, :CONTEXT]), actions)
        guess = data.codec.to_video(data.codec.project(z))
        spent = (time.process_time() - start) / guess.shape[0] / guess.shape[1]
    out = dict(name=name, seed=seed, steps=steps, frames=steps * world.batch * world.length, lr=lr, rates=losses, loss=loss, parameters=sum(p.numel() for p in world.net.parameters()),
               cpu_seconds=seconds, exam=marks(real, guess) | dict(seconds_per_frame=spent))
    at = lambda k: ' '.join(f'{mean_at(out["exam"], k, h):.2f}' for h in asked)
    print(f"[{time.strftime('%H:%M')}] {name}: {steps} steps, {out['parameters'] / 1e6:.2f}M, rate {lr}, loss {loss:.3f}, {1e3 * spent:.1f} ms a dreamed frame\n  near {at('near')}\n"
          f"  PSNR {at('psnr')}\n  delta {at('delta')}\n  outside {at('outside')}", flush=True)
    return out

def inside(a):
    for name in ABSENT: sys.modules.setdefault(name, MagicMock(__spec__=None))
    import torch
    from regimes import Data, kept
    torch.set_num_threads(1)
    data, parts = Data(a.data, 32), Path(a.data) / 'parts'
    runs = [kept(parts / f'peer-{name.split(",")[0]}-{seed}-{a.minutes}.json', lambda: one_world(name, data, 60 * a.minutes, seed, a.flights)) for seed in range(a.seeds) for name in a.only]
    Path(a.out).write_text(json.dumps(dict(torch=torch.__version__, minutes=a.minutes, data=data.hash, flights_hash=data.flights.hash, packages=[v for v in PACKAGES if '==' in v], runs=runs)) + '\n')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=2.)
    p.add_argument('--seeds', type=int, default=1)
    p.add_argument('--flights', type=int, default=8, help='of which 16 frames are dreamed')
    p.add_argument('--data', default='runs/regimes')
    p.add_argument('--out', default=str(REPO / 'bench' / 'results' / 'peers.json'))
    p.add_argument('--only', nargs='+', default=list(WORLDS), choices=list(WORLDS))
    p.add_argument('--packages', type=Path, default=Path('runs/peers'), help='where the packages are put, and found again')
    a = p.parse_args()
    if os.environ.get('ONIRIS_PEERS'): return inside(a)
    if not (a.packages / 'dreamer4').exists():
        subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', a.packages, *PACKAGES], check=True)
    path = os.pathsep.join(map(str, (REPO, a.packages.resolve())))
    subprocess.run([sys.executable, '-W', 'ignore', *sys.argv], check=True, env={**os.environ, 'ONIRIS_PEERS': '1', 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'})

if __name__ == '__main__': main()
