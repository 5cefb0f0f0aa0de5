"""From the runs of commands.sh: what 98a_gallery shows. `python collect.py FOLDER`, where FOLDER holds data/ and runs/ -> ../results/gallery.json
and ../../nbs/images/gallery_GAME.gif (real above, dreamed below)."""
import json, os, sys
from pathlib import Path
import numpy as np
from PIL import Image
from oniris.data.clips import Clips
from oniris.dream.dreamer import Dreamer
from oniris.dream.run import load_run
from oniris.evaluation.benchmark import make_benchmark
from oniris.frames import from_uint8, to_uint8
from oniris.training.checkpoint import read_log

HERE, HORIZONS = Path(__file__).resolve().parent, (1, 4, 16, 32, 64)

def size(path): return sum(f.stat().st_size for f in Path(path).rglob('*') if f.is_file()) / 1e6

def short(exam):
    "What is shown of an exam: horizon -> mean, low, high, number of sequences, while the game is on; the response to actions."
    rows, every = exam['rows']['playing'], exam['horizons']
    def at(row, metric, h): return [rows[row][metric][k][every.index(h)] for k in ('mean', 'low', 'high', 'n')]
    shown = dict(psnr=('dream', 'psnr'), codec=('codec', 'psnr'), above_copy=('dream', 'delta'))
    found = {name: {h: at(*which, h) for h in HORIZONS if h in every} for name, which in shown.items()}
    return found | dict(n=exam['n'], steps=exam['steps'], notes=exam['notes'], shuffled=exam['response']['pixel_ratio'], follows=exam['response'].get('pixels'))

def picture(run, benchmark, path, number=4, frames=40, colours=48):
    "A film of a few sequences, real above and dreamed below, in few colours so that it is small."
    c, first = benchmark.context, slice(0, number)
    real, actions = from_uint8(benchmark.frames[first, :c]), benchmark.actions[first]
    dreamed = to_uint8(Dreamer.from_run(run).reset(real, actions[:, :c]).rollout(actions[:, c:c + frames]))
    rows = np.concatenate([benchmark.frames[first, c:c + frames], dreamed], 2)
    film = np.concatenate([np.pad(v, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255) for v in rows], 2)
    h, w = film.shape[1:3]
    palette = Image.fromarray(film.reshape(-1, w, 3)).quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    pages = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in film]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=round(1000 / min(run.fps, 10)), loop=0, optimize=True)

def collect(game):
    run, data, seconds = load_run(f'runs/{game}', 'cpu'), Clips(f'data/{game}'), json.loads(Path(f'{game}.json').read_text())
    report = json.loads((run.path/'evaluation'/'evaluation.json').read_text())
    exams = {e['player']: short(e) for e in report['exams']}
    benchmark = make_benchmark(run, run.path/'evaluation'/'exam', progress=False) # found, not played again
    picture(run, benchmark, HERE.parents[1]/'nbs'/'images'/f'gallery_{game}.gif')
    log = read_log(run.path)
    return dict(env=run.about['env_id'], policy=run.about['policy'], fps=run.fps, clips=len(data), frames=data.frames, episodes=run.about['episodes'], seconds=seconds,
                data_mb=size(f'data/{game}'), run_mb=size(run.path/'world') + size(run.path/'codec'), steps=len(log), held_out_loss=log[-1].get('held_out_loss'),
                sampler=run.sampler, exams=exams, speed=report['speed'])

if __name__ == '__main__':
    os.chdir(sys.argv[1])
    sys.path.insert(0, os.getcwd())
    out = HERE.parent/'results'/'gallery.json'
    out.write_text(json.dumps({game: collect(game) for game in ('cars', 'doors') if Path(f'runs/{game}/evaluation/evaluation.json').is_file()}, indent=1))
    print(out, out.stat().st_size)
