"The glossary names chapters that exist."
import json, re
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / 'nbs'

def test_links_of_the_glossary():
    text = ''.join(''.join(c['source']) for c in json.loads((NBS / '99_glossary.ipynb').read_text(encoding='utf-8'))['cells'])
    links = re.findall(r'\]\(([\w.]+\.ipynb)\)', text)
    assert len(links) > 10 and not [l for l in links if not (NBS / l).is_file()]

def test_images_and_links_of_all_chapters():
    for path in NBS.glob('*.ipynb'):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        text = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
        for link in re.findall(r'\]\(([\w./-]+\.(?:ipynb|png|gif))[#)]', text) + re.findall(r'src="([\w./-]+)"', text):
            assert (NBS / link).is_file(), f'{path.name}: {link}'
