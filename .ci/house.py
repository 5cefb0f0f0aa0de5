#!/usr/bin/env python3
"""The house rules, held against the code: a wing imports only wings below it, no line is wider than 140 columns, no module is longer than a sitting.
`python .ci/house.py` prints what breaks them and exits with their number (at most 1)."""
import ast, sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / 'oniris'
STOREYS = [{''}, {'nn', 'diffusion', 'games'}, {'data'}, {'training'}, {'codec'}, {'dream'}, {'evaluation'}, {'agents'}, {'play'}, {'recipes'}]
HEIGHT = {wing: i for i, storey in enumerate(STOREYS) for wing in storey}
SIDEWAYS = {('diffusion', 'nn')}  # wings of one storey that may look at each other, in this direction
COLUMNS, LINES = 140, 450

def imported(file): # modules of oniris that `file` imports, wherever the statement stands, as ('wing', 'module')
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom): continue
        here = file.relative_to(PACKAGE.parent).with_suffix('').parts[:-1]
        if node.level: parts = here[:len(here) - node.level + 1] + tuple((node.module or '').split('.'))
        else: parts = tuple((node.module or '').split('.'))
        if parts[0] == 'oniris' and len(parts) > 1 and parts[1]: yield parts[1:], node.lineno

def problems():
    for file in sorted(PACKAGE.rglob('*.py')):
        if file.name in ('_modidx.py', '__init__.py'): continue
        where, text = file.relative_to(PACKAGE.parent), file.read_text(encoding='utf-8')
        wing = where.parts[1] if len(where.parts) > 2 else ''
        for parts, line in imported(file):
            other = parts[0] if (PACKAGE / parts[0]).is_dir() else ''
            if other == wing or (wing, other) in SIDEWAYS: continue
            if HEIGHT[other] >= HEIGHT[wing]: yield f'{where}:{line}: {wing or "the ground"} imports {".".join(parts)}, which is not below it'
        for i, l in enumerate(text.splitlines(), 1):
            if len(l) > COLUMNS: yield f'{where}:{i}: {len(l)} columns, expected at most {COLUMNS}'
        if (n := text.count('\n')) > LINES: yield f'{where}: {n} lines, expected at most {LINES}'

if __name__ == '__main__':
    found = list(problems())
    print('\n'.join(found) or 'the house is in order')
    sys.exit(bool(found))
