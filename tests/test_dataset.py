"""A dataset under attack: whatever is done to its files, a reader gets what was written or a DataError; whatever is given to a writer, it is stored or refused by name."""
import functools, json, pickle, resource, shutil
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings, strategies as st
from oniris.core import file_sha256
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.index import DataError
from oniris.data.spaces import action_from, action_vector, action_vectors, check_actions, describe_space, merge_actions, space_from
from oniris.games.lander import lander_clips

lander = lander_clips()
about = dict(env_id='LunarLander-v3', env={}, action_space=describe_space(spaces.Discrete(4)), skip=2)
good = {k: lander[k][0] for k in ('frames', 'actions', 'states')}

def write(path, n=12, **kwargs):
    w = Writer(path, 'frames', frames=32, size=64, action_dim=4, about=about, shard=5, fps=25, **kwargs)
    for i in range(w.done, n):
        clip, first = {k: lander[k][i] for k in ('frames', 'actions', 'states', 'rewards', 'done')}, lander['first'][i]
        w.add(**clip, episode=i, seed=lander['seed'][i], first=first, past=lander['past'][i, :first])
    return w

@pytest.fixture(scope='module')
def path(tmp_path_factory): return write(tmp_path_factory.mktemp('data')/'landers').close()

@pytest.fixture
def bad(path, tmp_path): return shutil.copytree(path, tmp_path/'bad')

def contents(clips): return pickle.dumps([(clips[i], clips.past(i)) for i in range(len(clips))])

def sign(d): # what a forger would do: the index is made to fit the files
    index = json.loads((d/'index.json').read_text())
    for s in index['shards']: s.update(bytes=(d/s['file']).stat().st_size, sha256=file_sha256(d/s['file']))
    (d/'index.json').write_text(json.dumps(index))

def shard(f, signed=False, name='shard-00001.h5'):
    def attack(d):
        (d/name).write_bytes(f((d/name).read_bytes()))
        if signed: sign(d)
    return attack

def swap(d, signed=False):
    a, b = d/'shard-00000.h5', d/'shard-00001.h5'
    a.rename(d/'c')
    b.rename(a)
    (d/'c').rename(b)
    if signed: sign(d)

def nan_action(d):
    with h5py.File(d/'shard-00000.h5', 'r+') as f: f['actions'][2, 5] = np.nan
    sign(d)

def another(d):
    shutil.copy(d/'shard-00000.h5', d/'shard-00001.h5')
    sign(d)

def index(**changes): return lambda d: (d/'index.json').write_text(json.dumps(json.loads((d/'index.json').read_text()) | changes))
def flip(at): return lambda b: b[:at] + bytes([b[at] ^ 4]) + b[at + 1:]

ATTACKS = dict(
    truncated=shard(lambda b: b[:-100]), missing=lambda d: (d/'shard-00002.h5').unlink(), swapped=swap, swapped_signed=lambda d: swap(d, True),
    another=another, one_bit=shard(flip(40_000)), one_bit_signed=shard(flip(40_000), True), zeros=shard(lambda b: bytes(len(b))), nan_action=nan_action,
    not_json=shard(lambda b: b[:200], name='index.json'), no_index=lambda d: (d/'index.json').rename(d/'progress.json'),
    fewer=index(clips=11), shorter=index(frames=16), wider=index(action_dim=8), leak=index(episodes=[0] * 12), upper=index(test=[True] * 13),
    other_space=index(about=dict(action_space=describe_space(spaces.Box(0, .5, (4,))))), gap=index(gap=[12]), test=index(test=[False] * 11 + [1]),
    cond=index(cond_dim=5), fields=index(fields=['frames']), kind=index(kind='latents'), channels=index(channels=4))

@pytest.mark.parametrize('name', ATTACKS)
def test_attacks_are_noticed(name, bad):
    ATTACKS[name](bad)
    with pytest.raises(DataError):
        clips = Clips(bad, verify=True)
        for i in range(len(clips)): clips[i], clips.window(i)

def test_another_file_is_never_opened(bad):
    shards = json.loads((bad/'index.json').read_text())['shards']
    index(shards=[shards[0] | dict(file='../landers/shard-00000.h5'), *shards[1:]])(bad)
    with pytest.raises(DataError): Clips(bad)

def test_single_bits_are_noticed_or_harmless(path, bad):
    whole, name = contents(Clips(path)), 'shard-00002.h5'
    data = (path/name).read_bytes()
    for seed in range(40):
        (bad/name).write_bytes(flip(int(np.random.default_rng(seed).integers(len(data))))(data))
        try: assert contents(Clips(bad)) == whole, 'read something that was not written'
        except DataError: pass

def places(v, at=()):
    yield at
    for k in v if isinstance(v, dict) else range(len(v)) if isinstance(v, list) else (): yield from places(v[k], (*at, k))

anything = st.recursive(st.none() | st.booleans() | st.integers() | st.integers(-1, 40) | st.floats() | st.text(max_size=5),
                        lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=5), s, max_size=3), max_leaves=6)
quick = settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))

def test_anything_in_the_index(path, bad):
    original, whole = Clips(path).index, contents(Clips(path))
    @quick
    @given(st.sampled_from(list(places(original))[1:]), anything | st.just('delete'))
    def any_index(at, value):
        changed = json.loads(json.dumps(original))
        into = functools.reduce(lambda v, k: v[k], at[:-1], changed)
        if value == 'delete': del into[at[-1]]
        else: into[at[-1]] = value
        (bad/'index.json').write_text(json.dumps(changed))
        try: assert contents(Clips(bad)) == whole
        except DataError: pass
    any_index()

def test_no_beginning_of_an_index_and_no_junk_is_an_index(path, bad):
    text = (path/'index.json').read_bytes()
    for junk in (*(text[:n] for n in range(0, len(text), 7)), b'[]', b'null', b'[' * 100_000, b'{"format": 1e999}', b'\xff', text.replace(b'25.0', b'NaN')):
        (bad/'index.json').write_bytes(junk)
        with pytest.raises(DataError): Clips(bad)

@pytest.mark.parametrize('exc,said,changed', [
    (TypeError, 'frames: expected uint8, got float32', dict(frames=good['frames'].astype(np.float32))),
    (ValueError, 'frames: expected shape', dict(frames=good['frames'][1:])),
    (ValueError, 'states: not all values are finite', dict(states=good['states'] * np.nan)),
    (ValueError, '32 of 32 vectors are not', dict(actions=good['actions'] * .9)),
    (TypeError, 'actions: expected float32, got', dict(actions=[['a'] * 4] * 32)),
    (ValueError, 'past: expected shape', dict(first=3, past=np.eye(4)[[0, 0]])),
    (ValueError, 'episode: expected a whole number', dict(episode=-1)),
    (ValueError, 'seed: expected a whole number', dict(seed=.5)),
    (TypeError, 'caption: expected a str', dict(caption=3)),
    (TypeError, 'resume: expected what JSON', dict(resume={1, 2})),
    (ValueError, 'expected four axes', dict(frames=np.zeros(3))),
    (ValueError, 'cond: not all values', dict(cond=[np.inf]))])
def test_a_clip_that_does_not_fit_is_refused_by_name(exc, said, changed, tmp_path):
    w = Writer(tmp_path/'refused', 'frames', 32, 64, 4, about)
    with pytest.raises(exc, match=said): w.add(**good | changed)
    assert len(w) == 0 and not (tmp_path/'refused').exists()

@pytest.mark.parametrize('bad', [dict(kind='pixels'), dict(frames=0), dict(size=(0, 3)), dict(action_dim=3), dict(shard=0), dict(test=1), dict(test='x'),
                                 dict(test=dict(clips=[1])), dict(fps=0), dict(fps=np.nan), dict(about=3), dict(about=dict(action_space=3)), dict(about=dict(what={1}))])
def test_arguments_that_make_no_sense(bad, tmp_path):
    args = dict(kind='frames', frames=32, size=64, action_dim=4, about=about) | bad
    with pytest.raises((ValueError, TypeError)): Writer(tmp_path/'refused', **args)

def test_nothing_half_is_left(tmp_path):
    with pytest.raises(ValueError, match='at least one clip'): Writer(tmp_path/'no', 'frames', 32, 64, 4, about).close()
    with pytest.raises(RuntimeError):
        with write(tmp_path/'no', n=3): raise RuntimeError
    assert not (tmp_path/'no').exists()
    write(tmp_path/'half', n=6)
    with pytest.raises(DataError, match='is not finished'): Clips(tmp_path/'half')
    with pytest.raises(ValueError, match='test: 0.1 then, 0.5 now'): write(tmp_path/'half', test=.5)

def test_a_full_disk_says_so_and_writing_goes_on(path, tmp_path):
    write(tmp_path/'full', n=5)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
    try:
        with pytest.raises(OSError, match='writing can go on'): write(tmp_path/'full')
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert Clips(write(tmp_path/'full').close()).hash == Clips(path).hash

number = st.floats(width=32, allow_nan=False, allow_infinity=False)

def passes(v, space, reset=False):
    try: check_actions(v[None], describe_space(space), reset)
    except ValueError: return False
    return True

@quick
@given(st.integers(1, 5), st.lists(st.sampled_from([0., 1., .5, -1., np.nan, np.inf]), min_size=5, max_size=5))
def test_what_passes_is_a_choice(n, v):
    space, v = spaces.Discrete(n), np.float32(v[:n])
    fits = any((v == action_vector(space, k)).all() for k in range(n))
    for reset in False, True: assert passes(v, space, reset) == (fits or (reset and not v.any()))

@quick
@given(st.lists(st.tuples(number, number, number | st.sampled_from([np.nan, np.inf, -np.inf])), min_size=1, max_size=3))
def test_what_passes_is_in_the_box(rows):
    a, b, v = np.float32(rows).T
    space = spaces.Box(np.minimum(a, b), np.maximum(a, b))
    assert passes(v, space) == bool(space.contains(v))

@quick
@given(st.integers(0, 2**31), st.sampled_from([spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3), spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,)))),
                                              spaces.Dict(dict(a=spaces.Discrete(2, start=-1), b=spaces.MultiBinary(2)))]))
def test_members_pass_in_every_space(seed, space):
    space.seed(seed)
    v = action_vector(space, space.sample())
    assert passes(v, space) and not passes(v + 2, space)
    assert (action_vector(space, action_from(space_from(describe_space(space)), v)) == v).all()

def test_lists_of_actions_name_the_frame():
    for bad, space, said in (([1, 2], None, 'need a space'), ([[1], [1, 2]], None, 'one length'), (None, None, 'expected a list'),
                             ([0, None], spaces.Discrete(3), 'frame 1, None'), ([[.5, 2]], spaces.Box(-1, 1, (2,)), 'frame 0')):
        with pytest.raises(ValueError, match=said): action_vectors(bad, space)
    for index, how, said in ([1, 4], 'error', 'frames 1 and 4 have different'), ([1, 1], 'error', 'comes twice'), ([0], 'first', "'first'"):
        with pytest.raises(ValueError, match=said): merge_actions(np.eye(4)[[0, 2, 2, 1, 1]], index, how)

class Killed(BaseException): pass

@pytest.mark.parametrize('after', range(5))
def test_a_dataset_that_is_replaced_survives_a_kill_between_any_two_renames(path, tmp_path, monkeypatch, after):
    place, rename, done = tmp_path/'place', type(tmp_path).rename, []
    write(place, n=7).close()
    def killed(self, to):
        if to.parent == place and len(done) == after: raise Killed
        if to.parent == place: done.append(to.name)
        return rename(self, to)
    w = write(place, overwrite=True)
    with monkeypatch.context() as m:
        m.setattr(type(tmp_path), 'rename', killed)
        if after < 4:
            with pytest.raises(Killed): w.close()
        else: w.close()
    with pytest.raises(FileExistsError): write(place)  # who comes next ends what was begun, and finds a dataset
    assert {p.name: p.read_bytes() for p in place.iterdir()} == {p.name: p.read_bytes() for p in path.iterdir()}
