"""The player's page in a real browser: keys, pause, single frames, another start, the game beside it, a recording that is downloaded, a second window, an agent.

Skipped without aiohttp, playwright or a Chromium (CHROMIUM names another one)."""
import io, os
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image

CHROMIUM = os.environ.get('CHROMIUM', '/usr/bin/chromium')
pytest.importorskip('aiohttp')
playwright = pytest.importorskip('playwright.sync_api')
from oniris.agents.actor_critic import make_policy_net
from oniris.agents.score import Pilot
from oniris.codec.codec import PatchPCA
from oniris.data.clips import Clips
from oniris.data.record import record
from oniris.diffusion.edm import Denoiser
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run, save_run
from oniris.nn.unet import UNet
from oniris.play.player import Player
from oniris.play.screen import Server
from oniris.play.show import AgentPlayer

@pytest.fixture(scope='module')
def browser():
    if not Path(CHROMIUM).is_file(): pytest.skip('no Chromium')
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        yield chromium
        chromium.close()

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A world that has learned nothing, small enough for any machine"
    folder = tmp_path_factory.mktemp('world')
    data = Clips(record('LunarLander-v3', folder/'data', clips=4, frames=8, size=16, skip=3, per_episode=2, longest=40, test=0, workers=1, progress=False))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        world = Denoiser(UNet(8, 4, 4, model_channels=8, channel_mult=(1,), video_attn=(8,), window=6))
    codec = PatchPCA(2, 4).fit(np.stack([clip['frames'] for clip in data]))
    return load_run(save_run(folder/'run', world, codec, data, context=4, sampler=dict(steps=1)), 'cpu')

def opened(browser, player): # a page that shows it
    server = Server(player)
    page, wrong = browser.new_page(), []
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.goto(server.url)
    page.wait_for_selector('.oniris-player[data-frame]', timeout=30_000)
    page.player = server.stage.player
    yield page
    assert not wrong
    page.close()
    server.close()

@pytest.fixture
def page(browser, run): yield from opened(browser, Player(run, seed=1))

@pytest.fixture
def show(browser, run): # the same, with an agent at the controls
    pilot = Pilot(run, make_policy_net(RewardHead(4, (8, 8), 4, 5, width=8), run.about['action_space']))
    yield from opened(browser, AgentPlayer(run, pilot, seed=1))

def frame(page): return int(page.get_attribute('.oniris-player', 'data-frame'))
def until(page, js, *given): page.wait_for_function(js, arg=given[0] if given else None, timeout=30_000)
def beyond(page, n): until(page, "n => Number(document.querySelector('.oniris-player').dataset.frame) > n", n)
def button(page, text): return page.get_by_role('button', name=text)
def picture(page, which=0): return page.evaluate("i => [...document.querySelectorAll('figure canvas')][i].toDataURL()", which)
def says(page, text): until(page, "text => document.querySelector('.oniris-player').innerText.includes(text)", text)

def test_escape_plays_and_pauses_and_a_dot_is_one_frame(page):
    first = picture(page)
    page.keyboard.press('Escape')
    beyond(page, 3)
    page.keyboard.press('Escape')
    says(page, 'play')
    until(page, "() => [...document.querySelectorAll('button')].some(b => b.textContent.includes('▶'))")
    page.wait_for_timeout(500)
    stopped = frame(page)
    page.wait_for_timeout(500)
    assert frame(page) == stopped and picture(page) != first
    page.keyboard.press('.')
    beyond(page, stopped)
    page.wait_for_timeout(300)
    assert frame(page) == stopped + 1

def test_a_key_that_is_held_is_the_action_until_it_goes_up(page):
    page.keyboard.down('ArrowUp')
    until(page, "() => document.querySelector('.chip.on')?.dataset.keys === 'up'")
    page.keyboard.press('.')
    beyond(page, 0)
    assert page.player.action.argmax() == 2
    page.keyboard.up('ArrowUp')
    until(page, "() => !document.querySelector('.chip.on')")
    page.keyboard.press('.')
    beyond(page, 1)
    assert page.player.action.argmax() == 0

def test_a_key_on_the_screen_serves_a_finger(page):
    chip = page.locator('.chip[data-keys=left]')
    chip.hover()
    page.mouse.down()
    until(page, "() => document.querySelector('.chip.on')?.dataset.keys === 'left'")
    page.keyboard.press('.')
    beyond(page, 0)
    assert page.player.action.argmax() == 1
    page.mouse.up()
    until(page, "() => !document.querySelector('.chip.on')")

def test_another_start_begins_at_frame_0_from_other_frames(page):
    page.keyboard.press('.')
    beyond(page, 0)
    strip = page.evaluate("() => document.querySelector('.strip').toDataURL()")
    page.keyboard.press('Backspace')
    until(page, "() => document.querySelector('.oniris-player').dataset.frame === '0'")
    assert page.player.start == 1
    until(page, "old => document.querySelector('.strip').toDataURL() !== old", strip)

def test_the_game_beside_it_is_drawn(page):
    button(page, 'game beside').click()
    until(page, "() => !document.querySelectorAll('figure')[1].hidden")
    before = picture(page, 1)
    page.keyboard.press('.')
    beyond(page, 0)
    page.wait_for_timeout(300)
    assert picture(page, 1) != before and len(page.player.pictures()) == 2

def test_what_was_recorded_is_downloaded_as_a_film(page):
    assert button(page, 'GIF').is_disabled()
    button(page, '● record').click()
    for n in range(5):
        page.keyboard.press('.')
        beyond(page, n)
    kept = len(page.player.kept)
    until(page, "n => document.querySelector('.rec').textContent === `● ${n}`", kept)
    with page.expect_download(timeout=30_000) as got: button(page, 'GIF').click()
    film = Image.open(io.BytesIO(Path(got.value.path()).read_bytes()))
    assert got.value.suggested_filename.endswith('.gif') and kept >= 5 and film.n_frames == kept

def test_a_second_window_takes_the_dream_over(page, browser):
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_selector('.oniris-player[data-frame]', timeout=30_000)
    says(page, 'another window')
    other.close()

def test_an_agent_plays_in_both_until_a_key_goes_down(show):
    assert button(show, 'agent plays').is_visible() and not show.evaluate("() => document.querySelectorAll('figure')[1].hidden")
    show.keyboard.press('.')
    beyond(show, 0)
    says(show, 'by its own eyes')
    says(show, 'nothing down: the agent plays')
    show.keyboard.down('ArrowUp')
    until(show, "() => document.querySelector('.chip.on')?.dataset.keys === 'up'")
    show.keyboard.press('.')
    says(show, 'same keys · main engine')
    assert show.player.game.actions[-1].argmax() == show.player.action.argmax() == 2
    show.keyboard.up('ArrowUp')
    button(show, 'agent plays').click()
    until(show, "() => !document.querySelector('.agent').classList.contains('on')")
    says(show, 'nothing down: nothing')
    show.keyboard.press('Backspace')
    until(show, "() => document.querySelector('.oniris-player').dataset.frame === '0'")

def test_without_an_agent_there_is_no_button_for_one(page): assert not button(page, 'agent plays').is_visible()
