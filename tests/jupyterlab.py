"""Every notebook in JupyterLab, as a reader runs it: a real browser opens it, runs all of its cells, and nothing fails.

    python tests/jupyterlab.py [nbs/22_mask.ipynb ...] [--shots DIR]

A script and no test, since it wants a browser: `pip install playwright` (no download of its own: the system's Chromium is used; CHROMIUM names
another one). Cells flagged `slow` or `cuda` are left out, as in `nbdev_test`. Widgets must appear where a notebook makes one, and every slider of
ipywidgets is moved by a key and has to answer. Pictures in the text must be shown. Exit status is the number of notebooks that failed; --shots keeps two pictures of each."""
import argparse, json, os, re, shutil, socket, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FLAGS = {'slow', 'cuda'}
RUN = """async () => {
    const app = window.jupyterapp, panel = app.shell.currentWidget
    await panel.context.ready; await panel.sessionContext.ready
    await app.commands.execute('notebook:run-all-cells')
}"""
STATE = """() => {
    const panel = window.jupyterapp.shell.currentWidget, cells = [...panel.content.model.cells].filter(c => c.type === 'code')
    const bad = cells.flatMap((c, i) => c.outputs.toJSON().filter(o => o.output_type === 'error').map(o => `cell ${i}: ${o.ename}: ${o.evalue}`))
    const widgets = cells.flatMap(c => c.outputs.toJSON()).filter(o => o.data && 'application/vnd.jupyter.widget-view+json' in o.data)
    return {kernel: panel.sessionContext.session?.kernel?.status, ran: cells.filter(c => c.executionCount).length, cells: cells.length, bad, widgets: widgets.length}
}"""

TOP = "() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; document.querySelector('.jp-WindowedPanel-outer')?.scrollTo(0, 0) }"

def without_flagged(path, folder):
    "A copy of a notebook without the cells that tests leave out, and without saved outputs"
    nb = json.loads(path.read_text(encoding='utf-8'))
    def flagged(c): return FLAGS & set(re.findall(r'^#\|\s*(\w+)\s*$', ''.join(c['source']), re.M))
    nb['cells'] = [c for c in nb['cells'] if c['cell_type'] != 'code' or not flagged(c)]
    for c in nb['cells']:
        if c['cell_type'] == 'code': c.update(outputs=[], execution_count=None)
    (folder/'nbs'/path.name).write_text(json.dumps(nb), encoding='utf-8')

def start_lab(folder):
    "JupyterLab on a free port, which runs until its process is ended -> process, address"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | dict(PYTHONPATH=f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", OMP_NUM_THREADS='1', OMP_WAIT_POLICY='PASSIVE', MPLBACKEND='')
    env.pop('MPLBACKEND')
    settings = Path(folder)/'settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings' # no question about news over the pictures
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(dict(fetchNews='false', checkForUpdates=False)), encoding='utf-8')
    env['JUPYTERLAB_SETTINGS_DIR'] = str(Path(folder)/'settings')
    command = ['jupyter', 'lab', '--no-browser', '--allow-root', f'--port={port}', '--IdentityProvider.token=', '--LabApp.expose_app_in_browser=True',
               f'--ServerApp.root_dir={folder}', '--LabApp.collaborative=False']
    lab = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f'http://127.0.0.1:{port}'
    for _ in range(120):
        try: return lab, address if urllib.request.urlopen(f'{address}/api').status == 200 else address
        except OSError: time.sleep(.5)
    lab.kill()
    raise RuntimeError('JupyterLab did not start')

def run(page, address, name, minutes):
    "Open a notebook, run all of it, wait -> what went wrong, or ''; how many widgets there are"
    page.goto(f'{address}/lab/workspaces/test-{time.time_ns()}/tree/nbs/{name}?reset')
    page.wait_for_selector('.jp-Notebook', timeout=60_000)
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=120_000)
    page.evaluate(RUN)
    end = time.time() + 60 * minutes
    while True:
        state = page.evaluate(STATE)
        if state['bad']: return '; '.join(state['bad']), state
        if state['kernel'] == 'idle': break
        if time.time() > end: return f'still running after {minutes} minutes', state
        page.wait_for_timeout(500)
    if state['cells'] and not state['ran']: return 'no cell ran', state
    shown = page.locator('.jp-OutputArea .jupyter-widgets, .jp-OutputArea canvas').count()
    if state['widgets'] and not shown: return f"{state['widgets']} widgets, and none is to be seen", state
    return move_sliders(page), state

def move_sliders(page):
    "Every slider goes one step up by a key, and its number follows -> what went wrong, or ''"
    for slider in page.locator('.widget-slider').all():
        handle, number = slider.locator('.noUi-handle').first, slider.locator('.widget-readout').first
        if not handle.count() or not number.count(): continue
        handle.scroll_into_view_if_needed()
        before = number.inner_text()
        for key in ('ArrowRight', 'ArrowLeft'): # one of both moves it, wherever it stands
            handle.focus(); page.keyboard.press(key); page.wait_for_timeout(400)
            if number.inner_text() != before: break
        else: return f'a slider stands at {before} whatever key is pressed'
    return ''

def look(page, folder, name):
    "Pictures of where a notebook ended and of its beginning, if there is a folder for them; those that its text names must be shown -> what went wrong, or ''"
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder/f'{name}_end.png')
    page.evaluate(TOP)
    page.wait_for_timeout(800)
    if folder: page.screenshot(path=folder/f'{name}_top.png')
    lost = page.evaluate("() => [...document.querySelectorAll('.jp-RenderedMarkdown img')].filter(i => !i.naturalWidth).map(i => i.alt || i.src)")
    return f'pictures that are not shown: {lost}' if lost else ''

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path); p.add_argument('--shots', type=Path); p.add_argument('--minutes', type=float, default=5.)
    a = p.parse_args()
    try: from playwright.sync_api import sync_playwright
    except ModuleNotFoundError: sys.exit('tests/jupyterlab.py: pip install playwright')
    notebooks = a.notebooks or sorted(q for q in (REPO/'nbs').glob('*.ipynb') if q.name[0] != '_')
    chromium, failed = os.environ.get('CHROMIUM', '/usr/bin/chromium'), 0
    flags = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run']
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        (Path(folder)/'nbs').mkdir()
        for q in notebooks: without_flagged(q.resolve(), Path(folder))
        shutil.copytree(REPO/'nbs/images', Path(folder)/'nbs/images') # what notebooks find beside them; the server shows no picture through a link
        for part in ('bench', 'oniris'): (Path(folder)/part).symlink_to(REPO/part)
        lab, address = start_lab(folder)
        try:
            browser = play.chromium.launch(executable_path=chromium, args=flags)
            for q in notebooks:
                page, began = browser.new_page(viewport=dict(width=1200, height=1600)), time.time()
                try:
                    wrong, state = run(page, address, q.name, a.minutes)
                    wrong = '; '.join(filter(None, [wrong, look(page, a.shots, q.stem)]))
                except Exception as e: wrong, state = f'{type(e).__name__}: {e}'.splitlines()[0], dict(ran=0, cells=0, widgets=0)
                failed += bool(wrong)
                print(f"{q.name}: {state['ran']} of {state['cells']} cells, {state['widgets']} widgets, {time.time() - began:.0f} s{f'; FAILED: {wrong}' if wrong else ''}", flush=True)
                page.close()
            browser.close()
        finally: lab.terminate()
    print(f'{len(notebooks) - failed} passed, {failed} failed')
    sys.exit(min(failed, 100))

if __name__ == '__main__': main()
