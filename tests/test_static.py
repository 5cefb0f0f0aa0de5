"""The page without Python, in a real browser: it dreams what Python dreams, and fetches nothing from elsewhere.

Skipped without playwright, a Chromium (CHROMIUM names another one) or onnxruntime-web: `npm install onnxruntime-web` in the directory you stand
in brings it, ORT_WEB names the folder that holds its files, and where there is an npm it is fetched into a temporary folder."""
import functools, http.server, os, shutil, subprocess, threading
from pathlib import Path
import numpy as np, pytest, torch

CHROMIUM = os.environ.get('CHROMIUM', '/usr/bin/chromium')
pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
playwright = pytest.importorskip('playwright.sync_api')
from oniris.codec.codec import PatchPCA
from oniris.core import generator
from oniris.data.clips import Clips
from oniris.data.record import record
from oniris.diffusion.edm import Denoiser
from oniris.dream.run import load_run, save_run
from oniris.nn.unet import UNet
from oniris.play.player import Player
from oniris.play.static import find_runtime, write_page

@pytest.fixture(scope='module')
def runtime(tmp_path_factory):
    "The folder of onnxruntime-web's files"
    if not Path(CHROMIUM).is_file(): pytest.skip('no Chromium')
    for place in (os.environ.get('ORT_WEB', ''), ''):
        try: return find_runtime(place)
        except ValueError: pass
    if not shutil.which('npm'): pytest.skip('no onnxruntime-web, and no npm to fetch it')
    folder = tmp_path_factory.mktemp('npm')
    try: subprocess.run(['npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', folder, 'onnxruntime-web'], check=True, timeout=120,
                        capture_output=True)
    except (subprocess.SubprocessError, OSError) as e: pytest.skip(f'npm could not fetch onnxruntime-web: {e}')
    return find_runtime(folder/'node_modules/onnxruntime-web/dist')

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "A world that has learned nothing; its gates are open by chance, so that the past matters"
    folder = tmp_path_factory.mktemp('world')
    os.environ['ONIRIS_CACHE'] = str(folder)
    data = Clips(record('LunarLander-v3', folder/'data', clips=2, frames=8, size=16, skip=3, per_episode=2, longest=40, test=0, workers=1, progress=False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(8, 4, 4, model_channels=8, channel_mult=(1, 2), video_attn=(4,), kernel_t=3, window=6, out_channels=5)
        for name, p in net.named_parameters():
            if name.endswith(('bias', 'slope')): torch.nn.init.normal_(p)
    codec = PatchPCA(2, 4).fit(np.stack([clip['frames'] for clip in data]))
    yield load_run(save_run(folder/'run', Denoiser(net, sigma_d=1.), codec, data, context=4, sampler=dict(steps=2)), 'cpu')
    os.environ.pop('ONIRIS_CACHE')

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass

@pytest.fixture(scope='module')
def page(world, runtime, tmp_path_factory):
    "The page in Chromium, loaded; `page.asked` are the addresses that it asked for"
    out = write_page(world, tmp_path_factory.mktemp('page'), runtime, starts=2)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=out))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        page = browser.new_page()
        page.asked, page.wrong = [], []
        page.on('request', lambda r: page.asked.append(r.url))
        page.on('pageerror', lambda e: page.wrong.append(str(e)))
        page.goto(f'http://127.0.0.1:{server.server_port}/')
        page.wait_for_function('() => window.player && window.player.frame === 0', timeout=60_000)
        yield page
        browser.close()
    server.shutdown()

MAKE = '''async ([start, context, action]) => {
    const z = await player.dream.make(new Float32Array(start), new Float32Array(context), new Float32Array(action))
    return [Array.from(z.data), Array.from(await player.dream.frame(z))]
}'''

def test_it_dreams_what_python_dreams(page, world):
    twin = Player(world, device='cpu')
    twin.tick()
    twin.reset(0) # as `write_page` does, so with the same noise on the past
    dreamer, moves = twin.dreamer, torch.eye(4)[torch.randint(4, (14,), generator=generator(0))]
    for i, action in enumerate(moves): # more than the window holds
        noises = [dreamer._noise(stream, dreamer.seeds, dreamer.ages, dreamer._shape) for stream in ('start', 'context')]
        frame = dreamer.step(action[None])
        z, rgb = page.evaluate(MAKE, [v.flatten().tolist() for v in (*noises, action)])
        off = np.abs(np.array(z) - dreamer.latents.flatten().numpy()).max()
        assert off < 1e-4, (i, off)
        seen = ((frame[0, 0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).flatten().numpy()
        assert np.abs(np.array(rgb) - seen).max() < .6, i

def test_it_is_played(page):
    page.keyboard.down('ArrowUp')
    page.keyboard.press('Escape') # play
    page.wait_for_function('() => player.frame >= 8', timeout=60_000)
    assert page.evaluate('() => [...player.action]') == [0, 0, 1, 0]
    page.keyboard.press('Escape')
    page.keyboard.up('ArrowUp')
    page.wait_for_function('() => !player.playing')
    page.keyboard.press('Backspace') # another start
    page.wait_for_function('() => player.start === 1 && player.frame === 0')
    page.keyboard.press('.') # one frame
    page.wait_for_function('() => player.frame === 1 && player.action[0] === 1')
    page.get_by_text('● record').click() # what it cannot do is said
    page.wait_for_function("() => document.querySelector('.note').textContent.includes('only with oniris_play')")
    assert not page.wrong
    assert all(url.startswith('http://127.0.0.1:') for url in page.asked)
