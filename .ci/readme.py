"""Writes README.md from nbs/index.ipynb (`python .ci/readme.py`), or compares the two (`--check`).

Quarto would do this too, but needs a separate download; this uses the standard library only. Markdown cells are copied,
code cells are shown with their printed outputs unless they say `#| hide` or `#| echo: false`. In the notebook a link is
relative to `nbs/`; in README to the root of the repository, so `images/x.gif` becomes `nbs/images/x.gif`; and setup.py
turns those into full addresses for PyPI. Every relative link must name a file that git tracks.
"""
import difflib, json, posixpath, re, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
notebook, readme = root/'nbs/index.ipynb', root/'README.md'
notice = '<!-- Written by .ci/readme.py from nbs/index.ipynb: edit the notebook, then run `python .ci/readme.py`. -->'
# `](target)`, `src="target"` and `href="target"`, unless the target is a full address or an anchor
relative = re.compile(r'(\]\(|\bsrc="|\bhref=")(?![a-zA-Z][a-zA-Z0-9+.-]*:|#|/)([^)"\s]+)')
fence = re.compile(r'^```.*?^```[ \t]*$', flags=re.S|re.M)

def relink(text):
    "`text` with its relative links moved from nbs/ to the root; fenced code is left alone."
    out, end = [], 0
    move = lambda s: relative.sub(lambda m: m[1] + posixpath.normpath('nbs/' + m[2]), s)
    for m in fence.finditer(text): out += [move(text[end:m.start()]), m[0]]; end = m.end()
    return ''.join(out) + move(text[end:])

def outputs(cell):
    "The printed outputs of a code cell, each as an indented block."
    for o in cell['outputs']:
        if o['output_type'] == 'error': raise SystemExit(f'{notebook.name} holds an error as output: {o["ename"]}')
        text = ''.join(o.get('text') or o.get('data', {}).get('text/plain', ''))
        if any(k.startswith('image/') for k in o.get('data', {})):
            raise SystemExit(f'{notebook.name} has a picture among its outputs: save it under nbs/images and link to it')
        if text.strip(): yield '\n'.join('    ' + l for l in text.rstrip().splitlines())

def render(cells):
    "README's text: markdown, shown code and printed outputs of `cells`, in order."
    parts = []
    for cell in cells:
        source = ''.join(cell['source']).strip()
        if not source: continue
        if cell['cell_type'] == 'markdown': parts.append(relink(source)); continue
        directives = [l[2:].strip() for l in source.splitlines() if l.startswith('#|')]
        code = '\n'.join(l for l in source.splitlines() if not l.startswith('#|')).strip()
        if 'hide' in directives or not code: continue
        if 'echo: false' not in directives: parts.append(f'```python\n{code}\n```')
        parts += outputs(cell)
    parts.insert(1, notice)
    return '\n\n'.join(parts) + '\n'

def untracked(text):
    "The relative links of README that name no tracked file."
    tracked = set(subprocess.run(['git', 'ls-files'], cwd=root, capture_output=True, text=True, check=True).stdout.splitlines())
    links = [m[2].split('#')[0] for m in relative.finditer(fence.sub('', text))]
    return [l for l in links if l not in tracked]

if __name__ == '__main__':
    text = render(json.loads(notebook.read_text(encoding='utf-8'))['cells'])
    if sys.argv[1:] == ['--check']:
        have = readme.read_text(encoding='utf-8') if readme.exists() else ''
        diff = list(difflib.unified_diff(have.splitlines(), text.splitlines(), 'README.md', 'nbs/index.ipynb', lineterm=''))
        lost = untracked(text)
        if diff: print('\n'.join(diff) + '\nREADME.md differs from nbs/index.ipynb: run python .ci/readme.py')
        if lost: print('README.md links to files that git does not track: ' + ', '.join(lost))
        sys.exit(bool(diff or lost))
    if sys.argv[1:]: sys.exit(f'usage: python .ci/readme.py [--check], not {" ".join(sys.argv[1:])}')
    readme.write_text(text, encoding='utf-8')
