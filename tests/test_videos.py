"Imports of films: what is refused, what is interrupted, what is held out. Run: pytest tests/test_videos.py"
import json, shutil
import h5py, numpy as np, pytest
from PIL import Image
from gymnasium import spaces
from oniris.core import write_atomic
from oniris.data import videos
from oniris.data.captions import embed_captions, read_actions, save_clips, text_encoder, word_encoder
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.spaces import describe_space
from oniris.data.folders import estimate_bytes, find_films
from oniris.data.sources import ensure_dataset, oniris_import
from oniris.data.videos import BrokenFilms, import_summary, import_videos
from oniris.frames import save_gif
from oniris.games.csgo import csgo_actions, csgo_names, csgo_vector, save_csgo

def moving(n=24, h=48, w=64, seed=0):
    g = np.random.default_rng(seed)
    x, dx = np.zeros((n, h, w, 3), np.uint8), g.integers(1, 5)
    x[:] = g.integers(0, 100, 3, np.uint8)
    for i in range(n): x[i, 10:24, dx * i % (w - 14):dx * i % (w - 14) + 14] = 255, 160, 0
    return x

@pytest.fixture
def films(tmp_path):
    "Four GIFs."
    for i in range(4): save_gif(moving(seed=i), tmp_path/'films'/f'f{i}.gif', fps=12.5)
    return tmp_path/'films'

def go(films, out='never', **kw): return import_videos(films, films.parent/out, **dict(frames=6, progress=False, overwrite=True) | kw)
def fails(f, says, error=ValueError):
    with pytest.raises(error, match=says): f()
def lines(path, *objects): write_atomic(path, '\n'.join(map(json.dumps, objects)).encode())

# options that make no sense, before any film is opened
@pytest.mark.parametrize('option,says', [(dict(short='long'), "'long'"), (dict(long='x'), "'x'"), (dict(fit='x'), 'fit'), (dict(merge='x'), 'merge'),
    (dict(back='nocolour'), 'nocolour'), (dict(frames=0), 'frames'), (dict(frames=2.5), 'frames'), (dict(fps=-1), 'fps'), (dict(stride=0), 'stride'),
    (dict(workers=0), 'workers'), (dict(fps=1e6), 'fps'), (dict(lag=-1), 'lag'), (dict(labels=True), 'lies in no folder'), (dict(size='a'), 'size'),
    (dict(test=2), 'test'), (dict(actions='nowhere.npy'), 'no such file'), (dict(embed='words'), 'no caption to embed')])
def test_refused(films, option, says): fails(lambda: go(films, **option), says, (ValueError, TypeError, OSError))

def test_refused_lengths_and_places(films):
    fails(lambda: import_videos(films, films/'set'), 'lies inside')
    fails(lambda: go(films, frames=30), 'it has 24 frames, a clip needs 30')
    fails(lambda: go(films, long='error'), 'not 6')
    fails(lambda: go(films, frames=30, short='drop'), 'too short')
    fails(lambda: find_films(films/'nowhere'), 'no such folder', FileNotFoundError)
    (films/'notes.txt').write_text('x')
    fails(lambda: find_films(films/'notes.txt'), 'is no film')

def test_films_that_differ(tmp_path):
    mix = tmp_path/'mix'
    for name, video, fps in ('a', moving(), 10), ('b', moving(w=40), 10), ('c', moving(), 20): save_gif(video, mix/f'{name}.gif', fps=fps)
    with pytest.raises(BrokenFilms) as e: go(mix)
    assert set(e.value.films) == {'b.gif', 'c.gif'} and 'size says' in e.value.films['b.gif'] and 'fps says' in e.value.films['c.gif']
    assert len(Clips(go(mix, size=16, fps=10))) == 10

def test_padding_is_marked(films):
    clips = Clips(go(films, frames=30, short='pad'))
    clip = clips[0]
    assert clip['done'].tolist() == [False] * 24 + [True] * 6 and (clip['frames'][24:] == clip['frames'][23]).all()
    assert clips.about['films'][0]['padded'] == 6

# interrupted, damaged, changed in between
class Killed(BaseException): pass

def killed_after(n, films, out, **kw):
    add, count = Writer.add, iter(range(n))
    def dying(self, *args, **kwargs):
        if next(count, None) is None: raise Killed
        return add(self, *args, **kwargs)
    Writer.add = dying
    try: import_videos(films, films.parent/out, **kw)
    except Killed: pass
    finally: Writer.add = add

ASKED = dict(frames=6, size=24, stride=5, shard=3, progress=False)

@pytest.mark.parametrize('n', [2, 3, 7, 11])
def test_killed_and_gone_on(films, n):
    whole = Clips(import_videos(films, films.parent/'whole', **ASKED), verify=True)
    killed_after(n, films, 'set', **ASKED)
    killed_after(2, films, 'set', **ASKED)  # and the second attempt too
    assert not (films.parent/'set'/'index.json').exists()
    assert Clips(import_videos(films, films.parent/'set', **ASKED), verify=True).hash == whole.hash
    assert {p.name for p in (films.parent/'set').iterdir()} == {p.name for p in whole.path.iterdir()}

def test_what_changed_in_between_is_not_mixed(films):
    killed_after(7, films, 'set', **ASKED)
    fails(lambda: import_videos(films, films.parent/'set', **ASKED | dict(size=32)), r'begun with other arguments \(size')
    lines(films/'captions.jsonl', *(dict(file=f'f{i}.gif', caption='x') for i in range(4)))
    fails(lambda: import_videos(films, films.parent/'set', **ASKED), 'about.beside')
    (films/'captions.jsonl').unlink()
    import_videos(films, films.parent/'set', **ASKED)
    fails(lambda: import_videos(films, films.parent/'set', **ASKED), 'holds a dataset', FileExistsError)

def test_strict_first_lenient_afterwards_goes_on(films):
    (films/'f1.gif').write_bytes((films/'f1.gif').read_bytes()[:-900])
    asked = dict(frames=8, size=32, test=.3, shard=2, progress=False)
    with pytest.raises(BrokenFilms, match='f1.gif: the file is cut off'): import_videos(films, films.parent/'later', **asked)
    before = {p.name: p.stat().st_mtime_ns for p in (films.parent/'later').glob('shard*')}
    later = Clips(import_videos(films, films.parent/'later', lenient=True, **asked))
    once = Clips(import_videos(films, films.parent/'once', lenient=True, **asked))
    assert len(before) == 4 and later.hash == once.hash
    assert {k: (films.parent/'later'/k).stat().st_mtime_ns for k in before} == before

def test_any_number_of_workers(films):
    assert Clips(go(films, 'one', workers=1)).hash == Clips(go(films, 'two', workers=2)).hash

# what is held out
def test_one_long_film(tmp_path):
    film = save_gif(moving(200), tmp_path/'film.gif', fps=10)
    clips = Clips(import_videos(film, tmp_path/'d', frames=16, size=32, fps=10, test=.2, progress=False))
    held = np.array(clips.index['test'])
    first = clips.first
    assert held.sum() == 2 and first[held].min() - (first[~held].max() + 16) == 16  # a gap as long as a clip
    assert '2 of them held out' in import_summary(clips.path) and '1 clips were left out' in import_summary(clips.path)
    assert not any(Clips(import_videos(film, tmp_path/'e', frames=16, size=32, fps=10, test=0, progress=False)).index['test'])
    with pytest.warns(UserWarning, match='nothing is held out'): import_videos(film, tmp_path/'f', frames=150, size=32, fps=10, progress=False)
    same = Clips(import_videos(film, tmp_path/'g', frames=16, stride=8, size=32, fps=10, test=.1, progress=False))
    held, first = np.array(same.index['test']), same.first
    assert held.sum() == 2 and first[held].min() >= first[~held].max() + 32

def test_copies_never_straddle_the_split(tmp_path):
    film = save_gif(moving(), tmp_path/'films'/'0.gif', fps=10)
    for i in range(1, 4): shutil.copy(film, tmp_path/'films'/f'{i}.gif')
    clips = Clips(go(tmp_path/'films', frames=6, test=.25))
    held, first = np.array(clips.index['test']), clips.first
    assert set(first[held]) == {18} and set(first[~held]) == {0, 6}  # all are one film, of which the end is held out
    assert '3 films are copies of others' in import_summary(clips.path)
    save_gif(moving(seed=5), tmp_path/'films'/'4.gif', fps=10)
    clips = Clips(go(tmp_path/'films', frames=6, test=.25))
    held = np.array(clips.index['test'])
    assert held.sum() in (4, 16) and len(set(np.array(clips.index['episodes'])[held])) == 1

def test_an_only_film_that_is_left(films):
    for i in 1, 2, 3: (films/f'f{i}.gif').write_bytes(b'GIF8 nothing')
    clips = Clips(go(films, lenient=True, test=.1))
    assert sum(clips.index['test']) == 1 and len(set(clips.index['episodes'])) == 2

# kinds
def test_stray_files(films):
    with h5py.File(films/'weights.h5', 'w') as f: f['w'] = 1
    Image.fromarray(moving(1)[0]).save(films/'thumb.png')
    assert find_films(films)[1:] == ([f'f{i}.gif' for i in range(4)], {'.h5': 1, '.png': 1})
    clips = Clips(go(films))
    assert clips.about['source'] == 'videos' and len(clips) == 16 and '.h5' in import_summary(clips.path)

def test_folders_of_pictures(tmp_path):
    for name in 'walk/a', 'walk/b', 'run/c':
        (tmp_path/'films'/name).mkdir(parents=True)
        for i, f in enumerate(moving(12, seed=len(name))): Image.fromarray(f).save(tmp_path/'films'/name/f'{i}.jpg')
    clips = Clips(go(tmp_path/'films', labels=True))
    assert [r['file'] for r in clips.about['films']] == ['run/c', 'walk/a', 'walk/b'] and clips.about['labels'] == ['run', 'walk'] and len(clips) == 6
    assert len(Clips(go(tmp_path/'films'/'run'/'c'))) == 2
    for k in 'run/c', 'walk/a', 'walk/b': (tmp_path/'films'/f'{k}.txt').write_text(k)
    assert Clips(go(tmp_path/'films'))[0]['caption'] == 'run/c'

def test_counter_strike_with_keys_and_mouse(tmp_path):
    g = np.random.default_rng(0)
    (tmp_path/'cs').mkdir()
    for k in range(2):
        buttons = [csgo_vector(g.choice(['w', 'a'], 1), (g.choice([-30, 0, 30]), 0), left=bool(i % 2)) for i in range(20)]
        save_csgo(tmp_path/'cs'/f'hdf5_dm_july2021_{k}.hdf5', g.integers(0, 255, (20, 15, 28, 3), np.uint8), np.stack(buttons))
    clips = Clips(go(tmp_path/'cs', frames=8), verify=True)
    want = csgo_actions(tmp_path/'cs'/'hdf5_dm_july2021_0.hdf5')
    assert len(clips) == 4 and np.array_equal(clips[1]['actions'], want[8:16]) and clips.about['action_names'] == csgo_names()
    from oniris.play.keys import default_keys
    keys = default_keys(clips.about)  # what the player makes of it
    assert np.array_equal(keys.vector(['w', 'mouse1'], moved=(30, 0)), csgo_vector('w', (30, 0), left=True))
    save_gif(moving(), tmp_path/'cs'/'a.gif', fps=16)
    fails(lambda: go(tmp_path/'cs'), 'bring their own actions')

# actions and descriptions
def test_actions_beside_the_films(films):
    space = describe_space(spaces.Discrete(3))
    lines(films/'actions.jsonl', dict(space=space), *(dict(file=f'f{i}.gif', actions=[None] + [i % 3] * 23) for i in range(4)))
    clips = Clips(go(films), verify=True)
    assert not clips[0]['actions'][0].any() and clips[5]['actions'].argmax(-1).tolist() == [1] * 6 and clips.about['action_space'] == space
    lines(films/'actions.jsonl', dict(space=space), dict(file='f0.gif', actions=[None] + [7] * 23))
    with pytest.raises(BrokenFilms) as e: go(films)
    assert 'that of frame 1, 7' in e.value.films['f0.gif'] and 'no line of actions' in e.value.films['f1.gif']

def test_a_file_of_actions_for_one_film(films):
    np.save(films.parent/'keys.npy', np.arange(24) % 3)
    clips = Clips(go(films/'f0.gif', 'k', actions=films.parent/'keys.npy'))
    assert clips.action_dim == 3 and clips[1]['actions'].argmax(-1).tolist() == [0, 1, 2, 0, 1, 2]
    write_atomic(films.parent/'stick.csv', '\n'.join(f'{i},{-i}' for i in range(24)).encode())
    assert Clips(go(films/'f0.gif', 's', actions=films.parent/'stick.csv'))[0]['actions'][3].tolist() == [3, -3]
    fails(lambda: go(films, actions=films.parent/'keys.npy'), 'expected one film')
    write_atomic(films.parent/'bad.csv', b'1,2\n3')
    fails(lambda: read_actions(films.parent/'bad.csv', ['a']), 'row of numbers')
    np.save(films.parent/'short.npy', np.zeros(5))
    fails(lambda: go(films/'f0.gif', actions=films.parent/'short.npy'), '24 frames .* 5 actions', BrokenFilms)

def test_one_text_or_label_for_all(films):
    clips = Clips(go(films, text='an orange box', embed='words:16'))
    assert clips[0]['caption'] == 'an orange box' and np.array_equal(clips[0]['cond'], word_encoder(16)(['an orange box'])[0]) and clips.about['text'] == 'words:16'
    assert Clips(go(films, label='box')).about['labels'] == ['box']
    (films/'f0.txt').write_text('its own')
    fails(lambda: go(films, text='x'), 'text: expected one source')
    fails(lambda: go(films, embed='words', label='x'), 'a film has one vector')

def test_captions(films):
    lines(films/'captions.jsonl', *(dict(file=f'f{i}.gif', caption=f'film {i}') for i in range(3)), dict(file='gone.gif', caption='x'))
    fails(lambda: go(films), 'f3.gif: there is no caption for it')
    lines(films/'captions.jsonl', *(dict(file=f'f{i}.gif', caption=f'film {i}' if i < 3 else '') for i in range(4)))
    told, direct = go(films, 'told'), Clips(go(films, 'direct', embed='words'))
    text = Clips(embed_captions(told, 'words', films.parent/'text'), verify=True)
    for i in range(len(text)): assert np.array_equal(text[i]['cond'], direct[i]['cond']) and np.array_equal(text[i]['frames'], direct[i]['frames'])
    assert text.index['test'] == direct.index['test'] and not text[15]['cond'].any()
    fails(lambda: embed_captions(films.parent/'text', 'words'), 'already')
    fails(lambda: embed_captions(told, 'words', films.parent/'direct'), 'holds a dataset', FileExistsError)

def bad_lines():
    yield [dict(file=f'f{i}.gif', embedding=[1] * (1 + i)) for i in range(4)], 'one width'
    yield [dict(file='f0.gif', embedding=['a'])], 'embedding of f0.gif'
    yield [dict(file='f0.gif', caption=None)], 'caption of f0.gif'
    yield [dict(caption='x')], "expected an object with a 'file'"
    yield [dict(file='f0.gif', caption='x')] * 2, 'comes twice'
    yield [3], 'expected an object'

@pytest.mark.parametrize('objects,says', list(bad_lines()))
def test_bad_lines(films, objects, says):
    lines(films/'captions.jsonl', *objects)
    fails(lambda: go(films), says)

def test_own_vectors(films):
    lines(films/'captions.jsonl', *(dict(file=f'f{i}.gif', embedding=[3, 4 + i]) for i in range(4)))
    assert np.allclose(Clips(go(films))[0]['cond'], np.sqrt([18/25, 32/25]))
    fails(lambda: go(films, embed='words'), 'a film has one vector')

def test_save_clips(tmp_path):
    x = np.stack([moving(8, seed=i) for i in range(5)])
    clips = Clips(save_clips(tmp_path/'a', x, cond=np.array([0, 2, 1, 2, 0])), verify=True)
    assert np.array_equal(clips[3]['frames'], x[3]) and clips.about['labels'] == ['0', '1', '2'] and np.allclose(clips[1]['cond'], [0, 0, 3 ** .5])
    assert Clips(save_clips(tmp_path/'b', x[..., 0], actions=np.zeros((5, 8, 2)))).action_dim == 2
    fails(lambda: save_clips(tmp_path/'c', x[0, 0]), 'frames')
    fails(lambda: save_clips(tmp_path/'c', x, captions=['x']), 'expected one for each of 5')
    fails(lambda: save_clips(tmp_path/'c', x, embed='words'), 'expected captions')
    assert (text_encoder('words:8')(['a']) == word_encoder(8)(['a'])).all()

# sizes, folders in the place of datasets, the command
def test_estimate(films, monkeypatch):
    assert estimate_bytes(films, [f'f{i}.gif' for i in range(4)], (10, 10)) == (96, 96 * 300)
    monkeypatch.setattr(videos, 'estimate_bytes', lambda *a: (10**6, 10**6 * 64 * 64 * 3))
    with pytest.warns(UserWarning, match='12.3 GB'): go(films)

def test_ensure_dataset(films):
    made = ensure_dataset(films, frames=6, size=16, quiet=True)
    stamp = (made/'index.json').stat().st_mtime_ns
    assert ensure_dataset(films, frames=6, size='16', quiet=True) == made and (made/'index.json').stat().st_mtime_ns == stamp
    assert ensure_dataset(made) == made and ensure_dataset(films, frames=6, size=24, quiet=True) != made
    (films/'f3.gif').unlink()
    assert len(Clips(ensure_dataset(films, frames=6, size=16, quiet=True))) == 12
    assert len(Clips(ensure_dataset(films/'f0.gif', frames=6, size=16, quiet=True))) == 3  # and one clip in the gap
    fails(lambda: ensure_dataset(films/'nowhere'), 'there is nothing', FileNotFoundError)

def test_command(films, capsys):
    (films/'f1.gif').write_bytes((films/'f1.gif').read_bytes()[:-900])
    with pytest.raises(SystemExit, match='f1.gif: the file is cut off'): oniris_import(str(films), str(films.parent/'set'), frames=10, size='24x32', quiet=True)
    oniris_import(str(films), str(films.parent/'set'), frames=10, size='24x32', lenient=True, quiet=True)
    said = capsys.readouterr().out
    assert '1 films are broken' in said and '12 frames at the ends' in said and Clips(films.parent/'set').size == (24, 32)
    with pytest.raises(SystemExit, match='no such folder'): oniris_import(str(films/'nowhere'), 'x')
    with pytest.raises(SystemExit, match='is not in'): oniris_import('minari:nothing-v0', 'x')
    with pytest.raises(SystemExit, match='data: expected'): oniris_import()

def test_digits_need_no_data(tmp_path, capsys):
    oniris_import('digits:6', str(tmp_path/'d'), size='32', embed='words')
    clips = Clips(tmp_path/'d', verify=True)
    assert len(clips) == 6 and clips.cond_dim == 128 and ' moves ' in clips[0]['caption'] and clips[0]['caption'] in capsys.readouterr().out
    with pytest.raises(SystemExit, match='expected digits:N'): oniris_import('digits:many', str(tmp_path/'e'))

def test_command_line(films):
    import subprocess, sys
    (films.parent/'run.py').write_text('from oniris.data.sources import oniris_import\noniris_import()\n')  # as the console script does
    for asked, made in (['films', 'a'], 'a'), (['--data', 'films', '--out', 'b'], 'b'), (['films'], 'data/films'):
        subprocess.run([sys.executable, 'run.py', *asked, '--frames', '6', '--quiet'], cwd=films.parent, check=True)
        assert len(Clips(films.parent/made)) == 16
