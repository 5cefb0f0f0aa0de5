"""Whole roads, tiny: what a person types, from a recording to a report. Run: pytest tests/test_roads.py"""
import json, os, socket, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from oniris.codec.latents import oniris_encode
from oniris.codec.train_vae import oniris_train_vae
from oniris.data.clips import Clips
from oniris.data.dataset import Writer
from oniris.data.record import oniris_record
from oniris.dream.rollout import oniris_dream
from oniris.dream.run import load_run
from oniris.evaluation.evaluate import oniris_evaluate
from oniris.recipes.train_world import oniris_train

BRIEF = dict(clips=2, horizon=2, seeds=1, long=0, dreams=1, fit=2) # of the evaluation

def examined(run, **options):
    "What oniris_evaluate wrote, read as strict JSON."
    oniris_evaluate(run=str(run), **BRIEF | options)
    file, = Path(run).rglob('evaluation.json')
    return json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f'{name} is no JSON'))

def test_the_walk(tmp_path, monkeypatch):
    "record -> train_vae -> encode -> train -> dream -> evaluate, each with its defaults but for sizes and counts."
    monkeypatch.chdir(tmp_path)
    oniris_record(env='CartPole-v1', policy='random', out='data', clips=12, frames=16, size=16, workers=1)
    oniris_train_vae(data='data', out='vae', steps=2)
    oniris_encode(data='data', codec='vae', out='latents')
    oniris_train(data='latents', out='run', steps=2)
    oniris_dream(run='run', frames=4)
    assert Path('dream.gif').stat().st_size
    assert load_run('run', 'cpu').time_stride == 1

def test_world_of_frames(tmp_path):
    "record -> train -> evaluate."
    oniris_record(env='CartPole-v1', policy='random', out=str(tmp_path/'data'), clips=12, frames=16, size=16, workers=1)
    oniris_train(data=str(tmp_path/'data'), out=str(tmp_path/'run'), steps=2, codecsteps=2)
    assert examined(tmp_path/'run', data=str(tmp_path/'data'))['exams'][0]['rows']

def test_conditioned(tmp_path):
    "A world that is told what it shows: trained, dreamed and evaluated on its own held-out clips."
    g = np.random.default_rng(0)
    with Writer(tmp_path/'data', 'frames', 16, 16, 0, dict(made='by a test'), test=.25) as out:
        for i in range(12): out.add(g.integers(0, 255, (16, 16, 16, 3), np.uint8), cond=np.eye(2)[i % 2], episode=i)
    oniris_train(data=str(tmp_path/'data'), out=str(tmp_path/'run'), steps=2, codecsteps=2)
    oniris_dream(run=str(tmp_path/'run'), frames=2, out=str(tmp_path/'dream.gif'))
    assert examined(tmp_path/'run', data=str(tmp_path/'data'))['exams'][0]['rows']

def _free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def test_two_processes(tmp_path):
    "Two processes with a codec to fit: its statistics are what the first one fitted, and the world is finished and drawn."
    pytest.importorskip('accelerate')
    g = np.random.default_rng(0)
    with Writer(tmp_path/'data', 'frames', 8, 16, 0, dict(made='by a test'), test=.25) as out:
        for i in range(8): out.add(g.integers(0, 255, (8, 16, 16, 3), np.uint8), episode=i)
    (tmp_path/'train.py').write_text('from oniris.recipes.train_world import oniris_train\noniris_train()\n')
    # Accelerate starts several processes on a CPU through MPI only; told that they are for GPUs, and then that there are none, by itself
    command = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1',
               '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', str(_free_port()), str(tmp_path/'train.py'),
               '--data', str(tmp_path/'data'), '--out', str(tmp_path/'run'), '--steps', '2', '--codecsteps', '2', '--preview', '1']
    env = os.environ | dict(ACCELERATE_USE_CPU='true', CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=env)
    assert not done.returncode, done.stderr[-3000:]
    run = load_run(tmp_path/'run', 'cpu')
    assert run.manifest['step'] == 2 and (tmp_path/'run'/'dashboard.png').is_file()
    codec = run.codec
    assert float(codec.mean.abs().max()) > 0 and float((codec.std - 1).abs().max()) > 0 # 0 and 1 are those of nothing fitted
    assert Clips(tmp_path/'run'/'latents').about['codec'] == codec.fingerprint()
