"""The codec that comes with oniris: the same weights, the same latents, the same pictures as when it was shipped. Run: pytest tests/test_shipped_codec.py

What it made of two clips is kept in shipped_codec.json, by the hash of its weights; `python tests/test_shipped_codec.py` writes that for a codec that is newly shipped."""
import json
from pathlib import Path
import numpy as np, pytest, torch
from oniris.codec.codec import Codec
from oniris.frames import from_uint8, to_uint8
from oniris.games.lander import lander_clips
from oniris.pretrained import bundled_runs, local_folder

KEPT = Path(__file__).with_name('shipped_codec.json')

@pytest.fixture(scope='module')
def codec(): return shipped()

def shipped():
    torch.set_num_threads(1)
    return Codec.from_pretrained(local_folder('lander', ('run.json', 'starts.npz', 'world/*', 'codec/*'))/'codec').eval()

def clip(): return from_uint8(lander_clips()['frames'][:1, 16:24]) # of the package

def facts(codec):
    "Numbers that no other codec would make: of the latents and of the pictures made of them."
    z = codec.to_latents(clip())
    y = to_uint8(codec.to_video(z))
    return dict(shape=list(z.shape), latents=[round(float(v), 5) for v in z.flatten()[::257]],
                rms=[round(float(v), 6) for v in z.square().mean((0, 1, 3, 4)).sqrt()],
                pixels=y.reshape(-1)[::1531].tolist(), mean=round(float(y.mean()), 4))

def test_same_latents_and_pictures_as_when_it_was_shipped(codec):
    kept = json.loads(KEPT.read_text()).get(codec.fingerprint())
    if not kept: pytest.skip(f'another codec is shipped; python tests/{Path(__file__).name} writes down what it makes')
    made = facts(codec)
    assert made['shape'] == kept['shape']
    np.testing.assert_allclose(made['latents'], kept['latents'], atol=2e-4)
    np.testing.assert_allclose(made['rms'], kept['rms'], atol=1e-4)
    assert abs(made['mean'] - kept['mean']) < .01
    assert np.abs(np.subtract(made['pixels'], kept['pixels'])).max() <= 1 # of 255

def test_same_bits_twice_and_alone(codec):
    "The same call gives the same bits; a clip in a batch, or a frame at a time with a memory, the same to rounding."
    x = clip()
    z = codec.to_latents(x)
    assert torch.equal(codec.to_latents(x), z) and torch.equal(codec.to_video(z), codec.to_video(z))
    both = codec.to_latents(torch.cat([x.flip(-1), x]))[1:]
    memory, p = codec.new_cache(), codec.time_stride
    pieces = torch.cat([codec.to_latents(part, memory) for part in x.split(p, 1)], 1)
    for other in both, pieces: assert (other - z).abs().max() < 1e-4 * z.abs().max()

if __name__ == '__main__':
    KEPT.write_text(json.dumps({shipped().fingerprint(): facts(shipped())}) + '\n')
    print(KEPT.read_text())
