#!/usr/bin/env python3
"""The table of results in nbs/index.ipynb, generated from what the notebooks' cells printed when they were run last.

`python .ci/results.py` writes it, `--check` says whether it has drifted. A row is (what, notebook, pattern, text): the pattern is looked for in the
notebook's saved outputs, and its groups fill the text. A number that no cell prints cannot get in."""
import json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = '<!-- results, written by .ci/results.py -->', '<!-- end of results -->'

ROWS = [
    ('two-copy, one-copy and cached pass of the whole U-Net, in units of the output', '25_unet', r'float64.*?([\d.]+e-\d+)', 'equal to {0} in float64'),
    ('the same of the DiT with full attention', '26_dit', r'full\s+two copies, one copy and cache apart by (\S+)', 'equal to {0}'),
    ('a DDPM on digits after two minutes: read as what was asked for, with guidance 1 and 2', '11_ddpm',
     r'guidance 1\s+([\d.]+%).*?guidance 2\s+([\d.]+%)', '{0} and {1}'),
    ("the bound on a toy's likelihood with 10, 100 and 1,000 steps; exact", '11_ddpm',
     r'exact: ([\d.]+).*?T =   10:.*?with beta ([\d.]+).*?T =  100:.*?with beta ([\d.]+).*?T = 1000:.*?with beta ([\d.]+)', '{1}, {2}, {3}; {0} nats per number'),
    ('a training pass with a context for every target, against two copies', '21_sequence', None, None),
]

def printed(name):
    "All text that a notebook's cells printed."
    nb = json.loads((ROOT / f'nbs/{name}.ipynb').read_text(encoding='utf-8'))
    outs = [o for c in nb['cells'] for o in c.get('outputs', [])]
    return '\n'.join(''.join(o.get('text') or o.get('data', {}).get('text/plain') or '') for o in outs)

def table():
    lines = ['| what | result | where |', '|---|---|---|']
    for what, name, pattern, text in ROWS:
        if pattern is None: continue
        found = re.search(pattern, printed(name), re.S)
        if not found: raise SystemExit(f'{name}.ipynb prints nothing like {pattern!r}: the row {what!r} has no number')
        lines.append(f'| {what} | {text.format(*found.groups())} | [{name}]({name}.ipynb) |')
    return '\n'.join(lines)

if __name__ == '__main__':
    path = ROOT / 'nbs/index.ipynb'
    nb = json.loads(path.read_text(encoding='utf-8'))
    cell = next(c for c in nb['cells'] if BEGIN in ''.join(c['source']))
    old = ''.join(cell['source'])
    new = re.sub(f'(?s){re.escape(BEGIN)}.*?{re.escape(END)}', lambda m: f'{BEGIN}\n\n{table()}\n\n{END}', old)
    if sys.argv[1:] == ['--check']: sys.exit('the table of results differs from what the notebooks print: run python .ci/results.py, then .ci/readme.py' if old != new else 0)
    cell['source'] = new.splitlines(True)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')
