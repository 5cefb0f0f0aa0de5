#!/usr/bin/env python3
"""Execute notebooks from top to bottom and save what their cells print: `python .ci/execute.py nbs/12_edm.ipynb ...`.

Cells flagged `cuda` or `slow` (settings.ini, tst_flags) are not run and keep their saved outputs; --flags runs the flags named too.
A cell that fails ends its notebook, whose file then stays as it was; exit status is the number of notebooks that failed (at most 1)."""
import argparse, base64, io, os, re, sys, time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb

def flags_of(cell): return {l[2:].strip() for l in cell.source.splitlines() if re.match(r'#\|\s*\w+\s*$', l)}

def shrink(outputs):
    "Pictures among `outputs` with 256 colours of their own, where that makes them smaller: notebooks are kept under 500 kB."
    from PIL import Image
    for data in (o['data'] for o in outputs if 'data' in o):
        for kind in {'image/png'} & set(data):
            old = base64.b64decode(''.join(data[kind]))
            picture, file = Image.open(io.BytesIO(old)), io.BytesIO()
            if picture.mode == 'P': continue
            white = Image.new('RGBA', picture.size, 'white')
            white.alpha_composite(picture.convert('RGBA'))
            white.convert('RGB').quantize(256, dither=Image.Dither.NONE).save(file, 'png', optimize=True)
            if len(file.getvalue()) < len(old): data[kind] = base64.b64encode(file.getvalue()).decode()

def execute(path, skip):
    nb, shell = read_nb(path), CaptureShell(path=path.parent)
    for cell in nb.cells:
        if cell.cell_type != 'code' or not cell.source.strip(): continue
        if flags_of(cell) & skip: continue
        cell.outputs = shell.run(cell.source, stdout=True, stderr=False) or []
        if shell.exc: return f'cell {cell.idx_}: {cell.source[:200]}\n{shell.exc[0].__name__ if isinstance(shell.exc, tuple) else type(shell.exc).__name__}: {shell.exc}'
    for cell in nb.cells: shrink(cell.get('outputs', []))
    clean_nb(nb)
    write_nb(nb, path)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('notebooks', nargs='+', type=Path)
    p.add_argument('--flags', nargs='*', default=[], help='flagged cells to run too')
    args = p.parse_args()
    config = ConfigParser(delimiters=['=']); config.read(ROOT / 'settings.ini', encoding='utf-8')
    skip, bad = set(config['DEFAULT']['tst_flags'].split()) - set(args.flags), 0
    for nb in args.notebooks:
        start, wrong = time.time(), execute(nb.resolve(), skip)
        print(f'{nb.name}: {time.time() - start:.1f} s' + (f'\nFAILED {wrong}' if wrong else ''), flush=True)
        bad += bool(wrong)
    sys.exit(bool(bad))
