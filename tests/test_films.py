"Readers of films against damage, odd files and what people bring. Run: pytest tests/test_films.py"
import shutil, tempfile
from pathlib import Path
import h5py, numpy as np, pytest
from PIL import Image
from oniris.data.films import as_size, film_frames, film_kind, fit, frame_rate, gif_frames, picture_frames, read_film, resample, video_frames
from oniris.data.folders import film_length, film_sha256
from oniris.frames import gif_bytes, save_gif
from oniris.games.csgo import csgo_actions, csgo_frames, csgo_vector, save_csgo

def moving(n=24, h=48, w=64, seed=0):
    g = np.random.default_rng(seed)
    x = np.zeros((n, h, w, 3), np.uint8)
    x[:] = g.integers(0, 60, 3, np.uint8)
    for i in range(n): x[i, 10:24, 2 * i % (w - 14):2 * i % (w - 14) + 14] = 255, 160, 0
    return x

def film_bytes(video, kind='mp4', codec='libx264', rate=12, turn=0, **options):
    av = pytest.importorskip('av')
    file = Path(tempfile.mkdtemp())/'film' # a real one: moving an index to the front reads it again
    with av.open(str(file), 'w', format=kind, options=options) as out:
        s = out.add_stream(codec, rate=rate, width=video.shape[2], height=video.shape[1], pix_fmt='yuv420p')
        if turn:
            if not hasattr(s, 'set_display_rotation'): pytest.skip('this PyAV cannot turn a film')
            s.set_display_rotation(turn)
        for f in video: out.mux(s.encode(av.VideoFrame.from_ndarray(f)))
        out.mux(s.encode())
    data = file.read_bytes()
    shutil.rmtree(file.parent)
    return data

def read(path): return np.stack([f for *_, f in film_frames(path)])
def fails(f, says, error=ValueError):
    with pytest.raises(error, match=says): f()

# what is cut off is called cut off
@pytest.mark.parametrize('cut', [1, 50, 500])
def test_cut_gif(tmp_path, cut):
    (tmp_path/'a.gif').write_bytes(gif_bytes(moving())[:-cut])
    fails(lambda: list(gif_frames(tmp_path/'a.gif')), 'cut off')

@pytest.mark.parametrize('front', [False, True])
@pytest.mark.parametrize('share', [.3, .6, .95])
def test_cut_mp4(tmp_path, front, share):
    "with its index at the end, as encoders leave it, and at the front, as the web wants it"
    data = film_bytes(moving(), **(dict(movflags='faststart') if front else {}))
    (tmp_path/'a.mp4').write_bytes(data[:int(share * len(data))])
    fails(lambda: list(video_frames(tmp_path/'a.mp4')), 'cut off')

def test_mp4_whose_index_was_never_written(tmp_path):
    data = film_bytes(moving())
    (tmp_path/'a.mp4').write_bytes(data[:data.index(b'moov') - 4])  # all boxes are whole, as after a recorder that was killed
    fails(lambda: list(video_frames(tmp_path/'a.mp4')), 'cut off: its index')

@pytest.mark.parametrize('share', [.5, .9])
def test_cut_webm_and_avi(tmp_path, share):
    for kind, codec in ('webm', 'libvpx-vp9'), ('avi', 'mpeg4'):
        data = film_bytes(np.concatenate([moving()] * 4), kind, codec)
        (tmp_path/f'a.{kind}').write_bytes(data[:int(share * len(data))])
        fails(lambda: list(video_frames(tmp_path/f'a.{kind}')), 'cut off')

def test_cut_png_and_webp(tmp_path):
    pages = [Image.fromarray(f) for f in moving(6)]
    for kind in 'png', 'webp':
        pages[0].save(tmp_path/f'a.{kind}', save_all=True, append_images=pages[1:], duration=100)
        data = (tmp_path/f'a.{kind}').read_bytes()
        assert film_kind(tmp_path/f'a.{kind}') == 'animation'
        (tmp_path/f'a.{kind}').write_bytes(data[:-40])
        fails(lambda: list(gif_frames(tmp_path/f'a.{kind}')), 'cut off')

def test_any_damage_is_a_film_or_a_reason(tmp_path):
    g, whole = np.random.default_rng(1), gif_bytes(moving())
    for _ in range(60):
        hurt = bytearray(whole)
        hurt[g.integers(len(hurt))] ^= 1 << g.integers(8)
        (tmp_path/'a.gif').write_bytes(bytes(hurt))
        try: read_film(tmp_path/'a.gif', (8, 8), fps=10)
        except (ValueError, OSError, SyntaxError, EOFError): pass

def test_nonsense_is_named(tmp_path):
    for name, data in {'a.mp4': b'no film', 'b.gif': b'GIF8, or so it says;', 'c.mp4': b'', 'd.webm': b'\x1aE\xdf\xa3' + bytes(99)}.items():
        (tmp_path/name).write_bytes(data)
        assert film_kind(tmp_path/name)  # it claims to be one, so it must not be passed over in silence
        with pytest.raises(Exception): read(tmp_path/name)

# clocks
def test_a_clock_that_starts_again_is_noticed(tmp_path):
    part = film_bytes(moving(), 'mpegts')
    for name in 'a.ts', 'a.mts':
        (tmp_path/name).write_bytes(part + part)
        fails(lambda: read(tmp_path/name), 'clock goes back at frame 24')
    (tmp_path/'whole.ts').write_bytes(part)
    assert len(read(tmp_path/'whole.ts')) == 24

def test_webm_has_an_even_pace_after_rounding(tmp_path):
    (tmp_path/'a.webm').write_bytes(film_bytes(moving(96), 'webm', 'libvpx-vp9'))
    film = read_film(tmp_path/'a.webm')
    assert len(film.frames) == 96 and abs(film.fps - 12) < .01 and film_length(tmp_path/'a.webm') == 96

def test_resample_against_looking_it_up():
    g = np.random.default_rng(0)
    for _ in range(200):
        d = g.uniform(.01, .4, g.integers(1, 30))
        starts, fps = np.cumsum(d) - d + g.uniform(0, 5), g.uniform(.5, 60)
        t = np.arange(1000) / fps + min(d[0], 1 / fps) / 2
        t = t[t < starts[-1] + d[-1] - starts[0]]
        want = np.searchsorted(starts - starts[0], t, 'right') - 1
        assert [j for j, _ in resample(zip(starts, d, range(len(d))), fps)] == want.tolist()
    assert list(resample(iter(()), 10)) == [] and frame_rate([0, 1, 2], 3) == 1

# formats
@pytest.mark.parametrize('name,kind,codec', [('a.3gp', '3gp', 'mpeg4'), ('a.mov', 'mov', 'libx264'), ('a.mkv', 'matroska', 'libx264'),
    ('a.avi', 'avi', 'mpeg4'), ('a.mts', 'mpegts', 'libx264'), ('a.flv', 'flv', 'flv1'), ('a.mpg', 'mpeg', 'mpeg1video')])
def test_containers(tmp_path, name, kind, codec):
    rate = 25 if codec == 'mpeg1video' else 12
    (tmp_path/name).write_bytes(film_bytes(moving(h=144, w=176), kind, codec, rate))
    got = read_film(tmp_path/name, (36, 44)).frames
    assert film_kind(tmp_path/name) == 'video' and len(got) == 24
    want = np.stack([fit(f, (36, 44)) for f in moving(h=144, w=176)])
    assert np.abs(got.astype(int) - want).mean() < 6

def test_a_phone_turned(tmp_path):
    for name, turn in ('a.mp4', 90), ('b.mp4', 0): (tmp_path/name).write_bytes(film_bytes(moving(), turn=turn))
    turned, straight = read(tmp_path/'a.mp4'), read(tmp_path/'b.mp4')
    assert turned.shape == (24, 64, 48, 3) and np.abs(np.rot90(turned, -1, (1, 2)).astype(int) - straight).mean() < 1

def test_content_not_ending(tmp_path):
    save_gif(moving(), tmp_path/'a.mp4')
    (tmp_path/'b.gif').write_bytes(film_bytes(moving()))
    (tmp_path/'noending').write_bytes(film_bytes(moving()))
    assert [film_kind(tmp_path/k) for k in ('a.mp4', 'b.gif', 'noending')] == ['animation', 'video', 'video']
    assert len(read(tmp_path/'a.mp4')) == len(read(tmp_path/'b.gif')) == len(read(tmp_path/'noending')) == 24

def test_what_is_no_film(tmp_path):
    for kind in 'png', 'jpg', 'webp': Image.fromarray(moving(1)[0]).save(tmp_path/f'photo.{kind}')
    (tmp_path/'notes.pdf').write_bytes(b'%PDF')
    (tmp_path/'free.txt').write_bytes(b'all free and wide open, mdat or moov')
    with h5py.File(tmp_path/'weights.h5', 'w') as f: f['layer/frame_0_y'] = 1
    (tmp_path/'broken.h5').write_bytes(b'\x89HDF\r\n\x1a\n')
    for p in tmp_path.iterdir(): assert film_kind(p) is None, p.name
    fails(lambda: read_film(tmp_path/'notes.pdf'), 'expected a film')

# pictures
def test_folder_of_pictures(tmp_path):
    video = moving(12)
    for i, f in enumerate(video): Image.fromarray(f).save(tmp_path/(f'{i}.png' if i % 2 else f'{i}.bmp'))
    film = read_film(tmp_path)
    assert np.array_equal(film.frames, video) and abs(film.fps - 10) < 1e-6 and film_length(tmp_path) == 12
    before = film_sha256(tmp_path)
    Image.fromarray(video[0]).save(tmp_path/'11.png')
    assert film_sha256(tmp_path) != before
    assert read_film(tmp_path, fps=24).fps == 24 and len(read_film(tmp_path, fps=24).frames) == 12  # no picture twice

def test_odd_pictures(tmp_path):
    Image.fromarray(np.full((4, 6), 2**15, np.uint16)).save(tmp_path/'0.png')
    Image.fromarray(np.full((4, 6), 128, np.uint8)).save(tmp_path/'1.png')
    Image.new('RGBA', (6, 4), (0, 0, 0, 0)).save(tmp_path/'2.png')
    frames = [f for *_, f in picture_frames(tmp_path, back='#808080')]
    assert [f.shape for f in frames] == [(4, 6, 3)] * 3 and all((f == 128).all() for f in frames)
    exif = Image.Exif()
    exif[0x112] = 6  # a phone held upright
    Image.new('RGB', (6, 4)).save(tmp_path/'3.jpg', exif=exif)
    assert [f.shape for *_, f in picture_frames(tmp_path)][-1] == (6, 4, 3)
    fails(lambda: read_film(tmp_path), 'change their size')
    (tmp_path/'4.jpg').write_bytes((tmp_path/'3.jpg').read_bytes()[:300])
    fails(lambda: read_film(tmp_path, (4, 4)), '4.jpg is no whole picture')

# sizes
@pytest.mark.parametrize('bad', ['64x', 'big', 0, (1, 2, 3), None, '3x-1', '', 'x', 1.5])
def test_sizes_that_mean_nothing(bad): fails(lambda: as_size(bad), 'HEIGHTxWIDTH')

def test_fit():
    frame = moving(1)[0]
    for how in 'crop', 'stretch', 'pad': assert fit(frame, (7, 5), how).shape == (7, 5, 3)
    assert np.abs(fit(frame, (24, 32)).mean((0, 1)) - frame.mean((0, 1))).max() < 1
    fails(lambda: fit(frame, (4, 4), 'bend'), "'bend'")

# Counter-Strike
def test_csgo_layout(tmp_path):
    g = np.random.default_rng(0)
    x, y = g.integers(0, 255, (6, 15, 28, 3), np.uint8), np.stack([csgo_vector('wa', (i, -i)) for i in range(6)])
    file = save_csgo(tmp_path/'a.hdf5', x, y)
    assert film_kind(file) == 'Counter-Strike' and np.array_equal(read(file), x) and film_length(file) == 6
    assert not csgo_actions(file)[0].any() and np.array_equal(csgo_actions(file)[1:], y[:-1]) and np.array_equal(csgo_actions(file, 0), y)
    with h5py.File(shutil.copy(file, tmp_path/'gap.hdf5'), 'a') as f: del f['frame_3_y']
    fails(lambda: list(csgo_frames(tmp_path/'gap.hdf5')), r"\['frame_3_y'\] missing among 6")
    with h5py.File(tmp_path/'gap.hdf5', 'a') as f: f['frame_3_y'] = np.ones(50)
    fails(lambda: csgo_actions(tmp_path/'gap.hdf5'), 'frame_3_y: expected 51')
    (tmp_path/'cut.hdf5').write_bytes(file.read_bytes()[:5000])
    assert film_kind(tmp_path/'cut.hdf5') == 'Counter-Strike'  # by its name: a broken film, and not one that is passed over
    fails(lambda: csgo_actions(file, 6), 'lag')
