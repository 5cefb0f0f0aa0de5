"""A dataset behind fsspec: slow, failing, damaged and deleted places; a full cache; two processes. Nothing wrong is ever read."""
import importlib.util, io, json, multiprocessing, os, signal, time
from pathlib import Path
import fsspec
import numpy as np
import pytest
import torch
from fsspec.spec import AbstractFileSystem
from oniris.data import remote
from oniris.data.captions import save_clips
from oniris.data.clips import Clips, batches
from oniris.data.dataset import Writer
from oniris.data.index import DataError
from oniris.data.look import oniris_look
from oniris.data.sources import ensure_dataset
from oniris.dream.run import load_run
from oniris.evaluation.benchmark import held_out
from oniris.recipes.train_world import oniris_train

class Trouble(AbstractFileSystem):
    "Files of this disk under trouble://; what happens to a shard is up to `fate`, and every opening is written down, whoever does it"
    protocol, root_marker, log, luck, rate, pause = 'trouble', '', None, None, 0., 0.
    def info(self, path, **_):
        path = self._strip_protocol(path)
        return dict(name=path, size=os.stat(path).st_size, type='directory' if os.path.isdir(path) else 'file')
    def fate(self, path): return Trouble.luck.integers(4) if Trouble.luck.random() < Trouble.rate else None
    def _open(self, path, mode='rb', **_):
        data = bytearray(Path(path).read_bytes())
        if not path.endswith('.h5'): return io.BytesIO(data)
        time.sleep(Trouble.pause)
        fate = self.fate(path)
        with open(Trouble.log, 'a') as f: f.write(f'{os.getpid()} {Path(path).name} {fate}\n')
        if fate == 0: raise TimeoutError('nobody answers')
        if fate == 1: del data[len(data) // 2:]
        if fate == 2: data[len(data) // 3] ^= 4
        if fate == 3: data += b'more'
        return io.BytesIO(data)

fsspec.register_implementation('trouble', Trouble, clobber=True)

@pytest.fixture
def place(tmp_path, monkeypatch):
    "A dataset of six shards, its address, and an empty cache"
    rng = np.random.default_rng(0)
    with Writer(tmp_path/'made', 'latents', 4, 2, 1, {}, shard=2, test=.2) as w:
        for i in range(12): w.add(rng.standard_normal((4, 3, 2, 2)), rng.standard_normal((4, 1)), episode=i)
    monkeypatch.setenv('ONIRIS_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('ONIRIS_CACHE_GB', '1')
    monkeypatch.setattr(remote, 'WAIT', .001)
    for k, v in dict(log=tmp_path/'log', luck=np.random.default_rng(0), rate=0., pause=0.).items(): monkeypatch.setattr(Trouble, k, v)
    return tmp_path/'made', f'trouble://{tmp_path}/made'

def opened(): return [l.split() for l in Trouble.log.read_text().splitlines()] if Trouble.log.exists() else []
def kept(): return [p for p in remote.cache_dir().rglob('*') if p.is_file() and 'shard' in p.name]
def same(a, b): return all(torch.equal(x, y) for x, y in zip(a[:2], b[:2]))

def test_the_batches_of_a_place_that_fails_are_those_of_the_disk(place, monkeypatch):
    here, url = place
    monkeypatch.setattr(Trouble, 'rate', .5)
    size = Clips(here).index['shards'][0]['bytes']
    monkeypatch.setenv('ONIRIS_CACHE_GB', str(2.5 * size / 1e9))
    local, there = Clips(here, 'train'), Clips(url, 'train')
    assert there.hash == local.hash and len(there) == len(local)
    for step in range(12):
        assert same(there.batch(3, step, 2), local.batch(3, step, 2))
        assert sum(p.stat().st_size for p in kept()) <= remote.cache_bytes()
    fates = [f for *_, f in opened()]
    assert {'0', '1', '2', '3', 'None'} <= set(fates) # all kinds of trouble, all overcome

def test_files_that_come_from_fsspecs_own_places(place):
    here, url = place
    assert same(Clips(f'file://{here}').batch(0, 0, 2), Clips(here).batch(0, 0, 2))
    memory = fsspec.filesystem('memory')
    for p in here.iterdir(): memory.pipe_file(f'/landers/{p.name}', p.read_bytes())
    assert same(Clips('memory://landers/').batch(0, 0, 2), Clips(here).batch(0, 0, 2))

def test_everything_is_fetched_once_where_it_fits(place):
    here, url = place
    Clips(url, verify=True)
    again = Clips(url, verify=True)
    assert len(opened()) == 6
    assert same(again.batch(0, 0, 4), Clips(here).batch(0, 0, 4))
    assert ensure_dataset(url) == again.path == remote.dataset_path(str(again.path)) # its directory opens without the place
    assert len(opened()) == 6 and Clips(again.path).url == url

def test_damage_in_the_cache_is_fetched_again(place):
    here, url = place
    there = Clips(url, verify=True)
    short, bent = (there.path/f'shard-0000{k}.h5' for k in (0, 1))
    short.write_bytes(short.read_bytes()[:-1])
    bent.write_bytes(bent.read_bytes()[:-1] + b'?')
    Clips(url)[0]
    assert [n for _, n, _ in opened()][6:] == [short.name]
    Clips(url, verify=True)
    assert [n for _, n, _ in opened()][6:] == [short.name, bent.name]

def test_giving_up_names_address_tries_and_the_last_error(place, monkeypatch):
    here, url = place
    monkeypatch.setattr(Trouble, 'fate', lambda self, path: 2)
    with pytest.raises(DataError, match=r'trouble://.*/shard-0000\d.h5: given up after 6 tries in .*sha256 is .*, the index says'): Clips(url)[0]
    assert len(opened()) == 6 and not kept()
    monkeypatch.setattr(Trouble, 'fate', lambda self, path: 0)
    with pytest.raises(DataError, match='TimeoutError: nobody answers'): Clips(url)[0]
    (here/'shard-00000.h5').unlink()
    before = len(opened())
    with pytest.raises(DataError, match='cannot be had: FileNotFoundError'): Clips(url)[0]
    assert len(opened()) == before # what is missing is not tried again
    with pytest.raises(FileNotFoundError, match='no such dataset'): Clips(url + 'x')

def test_half_an_index_is_tried_again_and_refused(place):
    here, url = place
    text = (here/'index.json').read_bytes()
    (here/'index.json').write_bytes(text[:len(text) // 2])
    with pytest.raises(DataError, match='index.json: given up after 6 tries'): Clips(url)

def test_another_dataset_at_the_same_address_gets_another_directory(place):
    here, url = place
    before = Clips(url)
    old = before[0]['frames']
    with Writer(here, 'latents', 4, 2, 1, {}, shard=2, test=.2, overwrite=True) as w:
        for i in range(4): w.add(np.zeros((4, 3, 2, 2)), np.zeros((4, 1)), episode=i)
    after = Clips(url)
    assert after.path != before.path and not after[0]['frames'].any() and (before[0]['frames'] == old).all()

def test_refusals(place, monkeypatch):
    here, url = place
    for wrong in ('0', '-1', 'many', 'nan', 'inf'):
        monkeypatch.setenv('ONIRIS_CACHE_GB', wrong)
        with pytest.raises(ValueError, match='ONIRIS_CACHE_GB'): Clips(url)[0]
    monkeypatch.setenv('ONIRIS_CACHE_GB', '1e-7')
    with pytest.raises(DataError, match='set ONIRIS_CACHE_GB higher'): Clips(url)[0]
    with pytest.raises(ValueError, match='expected an address that fsspec can open'): Clips('nowhere://x')
    for path in ('s3://bucket/made', Path('s3://bucket/made')):
        with pytest.raises(ValueError, match='expected a directory of this machine'): Writer(path, 'latents', 4, 2, 1, {})
    assert not Path('s3:').exists()

def test_only_mirrors_are_ever_deleted(place, monkeypatch):
    here, url = place
    real = remote.cache_dir()/'mine'
    save_clips(real, np.zeros((4, 4, 8, 8), np.uint8))
    size = Clips(here).index['shards'][0]['bytes']
    monkeypatch.setenv('ONIRIS_CACHE_GB', str(1.2 * size / 1e9))
    Clips(url, verify=True)
    Clips(real, verify=True)

def test_what_was_used_longest_ago_goes_first(place, monkeypatch):
    here, url = place
    there = Clips(url)
    size = there.index['shards'][0]['bytes']
    monkeypatch.setenv('ONIRIS_CACHE_GB', str(3.2 * size / 1e9))
    for k in (0, 1, 2, 0, 3):
        time.sleep(.01)
        remote.fetch_shard(there.path, there.index['shards'][k])
    assert {p.name for p in kept()} == {f'shard-0000{k}.h5' for k in (0, 2, 3)}

def _reader(url, here, seed, steps, out):
    torch.set_num_threads(1)
    Trouble.luck = np.random.default_rng(seed)
    local, there, limit = Clips(here), Clips(url), remote.cache_bytes()
    for step in range(steps):
        assert same(there.batch(seed, step, 2), local.batch(seed, step, 2))
        found = 0
        for p in kept():
            try: found += p.stat().st_size
            except FileNotFoundError: pass # the other's doing
        assert found <= limit, (found, limit)
    out.put(seed)

def test_two_processes_and_one_full_cache(place, monkeypatch):
    here, url = place
    size = Clips(here).index['shards'][0]['bytes']
    monkeypatch.setenv('ONIRIS_CACHE_GB', str(3.1 * size / 1e9))
    for k, v in dict(rate=.3, pause=.005).items(): monkeypatch.setattr(Trouble, k, v)
    fork = multiprocessing.get_context('fork')
    out = fork.Queue()
    both = [fork.Process(target=_reader, args=(url, here, seed, 10, out)) for seed in (1, 2)]
    for p in both: p.start()
    for p in both: p.join(120)
    assert [p.exitcode for p in both] == [0, 0]
    assert not list(remote.cache_dir().rglob('*.part'))

def test_two_processes_fetch_a_shard_once(place, monkeypatch):
    here, url = place
    monkeypatch.setattr(Trouble, 'pause', .3)
    there, fork = Clips(url), multiprocessing.get_context('fork')
    both = [fork.Process(target=remote.fetch_shard, args=(there.path, there.index['shards'][0])) for _ in range(2)]
    for p in both: p.start()
    for p in both: p.join(60)
    assert [p.exitcode for p in both] == [0, 0] and len(opened()) == 1

def test_a_process_that_was_killed_leaves_nothing_that_counts(place, monkeypatch):
    here, url = place
    there, fork = Clips(url), multiprocessing.get_context('fork')
    shards = there.index['shards']
    monkeypatch.setattr(remote, '_download', lambda *_: time.sleep(60))
    p = fork.Process(target=remote.fetch_shard, args=(there.path, shards[0]))
    p.start()
    part = there.path/'.shard-00000.h5.part'
    while not (part.exists() and part.stat().st_size): time.sleep(.01)
    os.kill(p.pid, signal.SIGKILL)
    p.join()
    monkeypatch.undo()
    os.environ.update(ONIRIS_CACHE=str(there.path.parent), ONIRIS_CACHE_GB=str(1.5 * shards[0]['bytes'] / 1e9))
    Trouble.log, Trouble.luck = there.path.parent/'log', np.random.default_rng(0)
    try:
        remote.fetch_shard(there.path, shards[1]) # there is room: the dead one's reservation is nobody's
        assert not part.exists()
        remote.fetch_shard(there.path, shards[0])
    finally:
        for k in ('ONIRIS_CACHE', 'ONIRIS_CACHE_GB'): del os.environ[k]

def test_workers_and_commands_take_an_address(place, capsys):
    here, url = place
    for (_, a), (_, b) in zip(batches(Clips(url), 0, 2, stop=4, workers=2), batches(Clips(here), 0, 2, stop=4)): assert same(a, b)
    oniris_look(url)
    assert f'{url}: 12 clips of 4 latents' in capsys.readouterr().out

def test_latents_bring_their_codec(place):
    here, url = place
    (here/'codec').mkdir()
    for name in ('config.json', 'model.safetensors'): (here/'codec'/name).write_bytes(name.encode())
    path = remote.dataset_path(url)
    assert (path/'codec'/'config.json').read_bytes() == b'config.json'
    assert json.loads((path/'remote.json').read_text()) == dict(url=url)

def test_training_and_asking_at_an_address(tmp_path, monkeypatch):
    monkeypatch.setenv('ONIRIS_CACHE', str(tmp_path/'cache'))
    g = np.random.default_rng(0)
    frames = g.integers(0, 255, (6, 1, 4, 4, 3), np.uint8).repeat(16, 1).repeat(8, 2).repeat(8, 3)
    save_clips(tmp_path/'d', frames, actions=g.standard_normal((6, 16, 2)).astype(np.float32), test=.4)
    url = f"file://{tmp_path/'d'}"
    oniris_train(data=url, out=str(tmp_path/'r'), steps=2, batch=2, codecsteps=2)
    run = load_run(tmp_path/'r')
    assert run.data.parent == tmp_path/'cache' and Clips(run.data).url == url
    assert len(held_out(run, url, 2, 4).frames) == 2

@pytest.mark.skipif(importlib.util.find_spec('s3fs') is not None, reason='s3fs is here')
def test_a_package_that_is_missing_is_named(): # before any work, whether called or typed
    with pytest.raises(ValueError, match='s3://bucket/landers: expected an address that fsspec can open, got .*s3fs'): Clips('s3://bucket/landers')
