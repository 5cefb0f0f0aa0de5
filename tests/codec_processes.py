"""A codec that two processes train (gloo, on the CPU) ends the same in both, statistics included, and what is saved is what they have.

python tests/codec_processes.py
"""
import json, os, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from several import TWO

VAE_ARGS = dict(channels=(3, 8, 4), time_strides=(2, 1), space_strides=(4, 1))

def worker(out):
    from oniris.codec.train_vae import train_vae
    from oniris.codec.vae import VAE
    from oniris.frames import from_uint8
    rank = os.environ['RANK']
    frames = np.random.default_rng(0).integers(0, 256, (6, 8, 16, 16, 3), dtype=np.uint8)
    torch.manual_seed(int(rank)) # first weights of its own: what they end with must come from the first process
    vae = VAE(**VAE_ARGS)
    train_vae(vae, frames, 3, out, batch=2, length=4, held=from_uint8(frames[:2]), bar=False)
    (Path(out)/f'rank{rank}.json').write_text(json.dumps(dict(fingerprint=vae.fingerprint(), mean=vae.mean.flatten().tolist(), std=vae.std.flatten().tolist())))

def main():
    from oniris.codec.vae import VAE
    with tempfile.TemporaryDirectory() as out:
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE', 'ACCELERATE_USE_CPU': 'true'}
        done = subprocess.run([*TWO, __file__, out], env=env, capture_output=True, text=True)
        if done.returncode: sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
        first, second = (json.loads((Path(out)/f'rank{i}.json').read_text()) for i in range(2))
        saved = VAE.from_pretrained(out)
    assert first == second, f'the processes differ: {first} and {second}'
    assert saved.fingerprint() == first['fingerprint'], 'what is saved is not what they have'
    assert any(m != 0 for m in first['mean']) and any(s != 1 for s in first['std']), 'nothing was measured'
    print('two processes, one codec:', first)

if __name__ == '__main__': worker(sys.argv[1]) if len(sys.argv) > 1 else main()
