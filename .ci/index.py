#!/usr/bin/env python3
"""What nbs/index.ipynb and the sidebar say of the notebooks, generated from the notebooks: the map of the course (from their titles) and the table of
results (from what their cells printed when they were run last). `python .ci/index.py` writes them, `--check` says whether they have drifted.

A row of results is (what, notebook, pattern, text): the pattern is looked for in the notebook's saved outputs, its groups fill the text.
A number that no cell prints cannot get in."""
import json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ['Ground', 'Diffusion', 'The network', 'Data and games', 'Training', 'Compression', 'Dreaming', 'Evaluation and play', 'Agents', 'The runs']

ROWS = [
    ('two-copy, one-copy and cached pass of the U-Net, largest difference in units of the output', '25_unet', r'14 networks in float64: largest difference (\S+)', '{}'),
    ('the same of the DiT, full and factored', '26_dit', r'full\s+two copies, one copy and cache apart by (\S+).*?factored\s+two copies, one copy and cache apart by (\S+)', '{} and {}'),
    ('the same of a whole dream over three windows', '61_dreamer', r'(\S+) after 12 frames, \{.window.: 4\}', '{}'),
    ('the video autoencoder in pieces against the whole', '52_vae', r'pieces against the whole, (\d+) networks and (\d+) plans: (\S+)', '{2} over {0} networks and {1} plans'),
    ("one batch on two processes, or in parts, against one process: loss, relative", '43_processes', r'4 parts: largest relative difference (\S+)', '{}'),
    ('the bound on the likelihood of a toy with 10, 100 and 1,000 steps; the exact one', '11_ddpm',
     r'exact: ([\d.]+).*?T =   10:.*?with beta ([\d.]+).*?T =  100:.*?with beta ([\d.]+).*?T = 1000:.*?with beta ([\d.]+)', '{1}, {2}, {3}; {0} nats per number'),
    ('digits of a DDPM after two minutes on a CPU, read as what was asked for: guidance 1, 2', '11_ddpm', r'guidance 1\s+([\d.]+%).*?guidance 2\s+([\d.]+%)', '{}, {}'),
    ('a training step of the U-Net arranged plainly against ours; an evaluation without a cache', '25_unet',
     r'plain against ours: step ([\d.]+) times the seconds.*?without a cache ([\d.]+) times', '{} times the time; {} times'),
    ('PSNR after 8 dreamed frames of LunarLander, two minutes of training each, three seeds: two copies, frame stacking, a context for each target, Diffusion Forcing', '95a_regimes',
     r'\nPSNR, dB ' + ''.join(rf'.*?\n  {n} +(?:[\d.]+ ±[\d.]+ +){{2}}([\d.]+ ±[\d.]+)' for n in ('two copies', 'frame stacking', 'own context', 'diffusion forcing')), '{}, {}, {}, {} dB'),
    ('training time of a supervised frame behind 4, 16 and 64 frames: a context for each target against two copies', '95a_regimes',
     r'own context / two copies +measured ([\d.]+) [\d.]+ ([\d.]+) [\d.]+ ([\d.]+);', '{}, {}, {} times'),
    ('a colour that was hidden for 30 frames, recalled: attention over 32 frames, over 8, four stacked frames (chance .25)', '95b_memory',
     r'window 8 \(3 seeds\)[ \d.]* ([\d.]+)\nwindow 32 \(3 seeds\)[ \d.]* ([\d.]+)\n.*?four stacked frames \(3 seeds\)[ \d.]* ([\d.]+)', '{1}; {0}; {2}'),
    ('the shipped world asked in mid-air, heuristic: share of landers within 60 of 600 pixels after 8, 16, 32 and 64 frames', '97_lander',
     r'expert, 1 evaluation \| flying.*?\n +8 +([\d.]+).*?\n +16 +([\d.]+).*?\n +32 +([\d.]+).*?\n +64 +([\d.]+)', '{}, {}, {}, {}'),
    ('an agent that learned in dreams only, 100 flights of the real LunarLander: landed, with its interval; the heuristic through eyes like its own; told the state', '85_landing',
     r'heuristic, told: .*?ended well ([\d.]+).*?heuristic, by eye: .*?ended well ([\d.]+).*?one core, again: .*?ended well ([\d.]+) \(([\d.]+) ([\d.]+)\)', '{2} ({3} to {4}); {1}; {0}'),
    ('dreams asked for by a sentence after three minutes on one core: go where they were told (chance 25%); show the digit (chance 10%)', '92a_words',
     r'guidance 2\s+digit +([\d.]+%)\s+direction +([\d.]+%)', '{1}; {0}'),
    ('64 frames of it by ONNX Runtime against PyTorch, largest difference of a pixel (from -1 to 1)', '62a_onnx', r'64 frames from the same noise: off by at most (\S+) of 2', '{}'),
    ('a dream of 10,000 frames against its first 100', '61_dreamer', r'10,000 against 100: ([\d.]+)', '{} of the time a frame'),
]

def cells(name): return json.loads((ROOT / f'nbs/{name}.ipynb').read_text(encoding='utf-8'))['cells']

def printed(name):
    "All text that a notebook's cells printed."
    outs = [o for c in cells(name) for o in c.get('outputs', [])]
    return '\n'.join(''.join(o.get('text') or o.get('data', {}).get('text/plain') or '') for o in outs)

def results():
    lines = ['| what | result | where |', '|---|---|---|']
    for what, name, pattern, text in ROWS:
        found = re.search(pattern, printed(name), re.S)
        if not found: raise SystemExit(f'{name}.ipynb prints nothing like {pattern!r}: the row {what!r} has no number')
        lines.append(f'| {what} | {text.format(*found.groups())} | [{name}]({name}.ipynb) |')
    return '\n'.join(lines)

def part_of(name): return 'Appendix' if name == '99_glossary' else PARTS[int(name[0])]

def notebooks(): return sorted(p.stem for p in (ROOT / 'nbs').glob('[0-9]*.ipynb'))

def course():
    lines = ['| part | notebook | what it is about |', '|---|---|---|']
    last = None
    for name in notebooks():
        title, quote = re.match(r'# (.*?)\n+> (.*)', ''.join(cells(name)[0]['source'])).groups()
        part = part_of(name)
        lines.append(f'| {part if part != last else ""} | [{name}]({name}.ipynb) | {quote.strip().rstrip(".")} |')
        last = part
    return '\n'.join(lines)

def sidebar():
    text = (ROOT / '_quarto.yml').read_text(encoding='utf-8')
    sections = ''
    for part in [*PARTS, 'Appendix']:
        names = [f'{n}.ipynb' for n in notebooks() if part_of(n) == part]
        if names: sections += f'      - section: "{part}"\n        contents: [{", ".join(names)}]\n'
    return re.sub(r'(      - index\.ipynb\n).*?(?=\n\S)', lambda m: m[1] + sections.rstrip('\n') + '\n', text, flags=re.S)

def replaced(text, **parts):
    for name, part in parts.items():
        begin, end = f'<!-- {name}, written by .ci/index.py -->', f'<!-- end of {name} -->'
        text = re.sub(f'(?s){re.escape(begin)}.*?{re.escape(end)}', lambda m: f'{begin}\n\n{part}\n\n{end}', text)
    return text

if __name__ == '__main__':
    path, quarto = ROOT / 'nbs/index.ipynb', ROOT / '_quarto.yml'
    nb = json.loads(path.read_text(encoding='utf-8'))
    new, made = json.loads(json.dumps(nb)), dict(course=course(), results=results())
    for cell in new['cells']:
        if cell['cell_type'] == 'markdown': cell['source'] = replaced(''.join(cell['source']), **made).splitlines(True)
    side = sidebar()
    if sys.argv[1:] == ['--check']:
        bad = [n for n, yes in (('nbs/index.ipynb', new != nb), ('_quarto.yml', side != quarto.read_text(encoding='utf-8'))) if yes]
        sys.exit(f'{" and ".join(bad)} differ from what the notebooks say: run python .ci/index.py, then python .ci/readme.py' if bad else 0)
    path.write_text(json.dumps(new, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')
    quarto.write_text(side, encoding='utf-8')
