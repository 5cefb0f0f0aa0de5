"""Long videos through the published channel plans (24x and 96x, 256 by 256 pixels) in memory that does not grow. Run: pytest tests/test_codec_memory.py

Every operation is counted on tensors that have shapes and no numbers (device meta), so the real networks run in seconds on a CPU."""
import pytest, torch
from counted_bytes import Bytes
from oniris.codec.train_vae import CODECS
from oniris.codec.vae import VAE

@pytest.mark.parametrize('name', CODECS)
def test_two_thousand_frames_take_the_memory_of_a_few(name):
    vae = VAE(**CODECS[name]).eval().to('meta')
    p, most, kept, long = vae.time_stride, [], [], 32 # frames of a piece
    encoded, decoded = vae.new_cache(), vae.new_cache()
    with Bytes() as count:
        for start in range(0, 2000, long):
            count.begin()
            piece = torch.empty(1, long, 3, 256, 256, device='meta')
            z = vae.to_latents(piece, encoded)
            y = vae.to_video(z, decoded)
            assert y.shape == piece.shape and z.shape[1] == long // p
            most.append(count.most)
            del piece, z, y
            kept.append(count.now)                   # what the layers remember
    print(f'{name}: {most[-1] / 2 ** 30:.2f} GiB at most for pieces of {long} frames, {kept[-1] / 2 ** 20:.0f} MiB remembered between them')
    assert len(set(most[2:])) == 1 and len(set(kept[1:])) == 1, (most[:4], most[-4:], kept[:4], kept[-4:])
