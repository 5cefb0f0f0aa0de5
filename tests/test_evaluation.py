"Exams of worlds that have learned nothing: what is there is asked, and what is not is said. Run: pytest tests/test_evaluation.py"
import json
from pathlib import Path
import numpy as np, pytest, torch
from oniris.data.dataset import Writer
from oniris.diffusion.edm import Denoiser
from oniris.dream.run import Run
from oniris.evaluation.benchmark import fair_start, held_out, make_benchmark
from oniris.evaluation.evaluate import evaluate, report_table
from oniris.evaluation.metrics import bootstrap, ratio, summary, wilson
from oniris.evaluation.questions import resimulate
from oniris.nn.unet import UNet
from oniris.games.lander import lander_in_view, lander_status

def films(folder, clips=2, frames=12, test=(0, 1), size=16, cond=0):
    rng = np.random.default_rng(0)
    about = dict(captions=['a', 'b']) if cond else {}
    with Writer(folder/'films', 'frames', frames, size, 0, about, test=list(test)) as w:
        for _ in range(clips): w.add(frames=rng.integers(0, 256, (frames, size, size, 3), np.uint8))
    return folder/'films'

def world(folder, about=None, action_dim=0, size=16, data=None, **sizes):
    torch.manual_seed(0)
    net = UNet(size, 3, action_dim, model_channels=8, channel_mult=(1,), window=4, **sizes)
    manifest = dict(about=about or {}, context=4, size=[size, size], fps=10, action_dim=action_dim, sampler=dict(steps=1))
    if data: manifest['data'] = str(data)
    return Run(Path(folder), Denoiser(net), None, {}, manifest)

def test_a_film_world_takes_what_is_there_and_says_so(tmp_path):
    report, _ = evaluate(world(tmp_path, data=films(tmp_path)), progress=False)
    said = ' '.join(report['notes'])
    assert 'horizon is 8, not 64' in said and 'has 2' in said and 'no simulator' in said
    assert report['files'] == ['evaluation.json', 'evaluation.png'] and not (tmp_path/'evaluation/actions.png').exists()
    assert json.loads((tmp_path/'evaluation/evaluation.json').read_text())['exams'][0]['n'] == 2
    assert 'PSNR' in report_table(report)

def test_few_clips_are_a_sentence_and_not_a_crash(tmp_path):
    report, _ = evaluate(world(tmp_path, data=films(tmp_path, clips=1, test=[0])), fit=5, progress=False)
    assert any('one recording' in n for n in report['notes']) and any('Fréchet' in n for n in report['notes'])

def test_nothing_held_out_is_said(tmp_path):
    report, _ = evaluate(world(tmp_path, data=films(tmp_path, test=[])), horizon=4, progress=False)
    assert any('memory' in n for n in report['notes'])

def test_no_data_and_no_simulator_is_refused(tmp_path):
    with pytest.raises(ValueError, match='give data='): make_benchmark(world(tmp_path), tmp_path/'exam')

def test_a_simulator_that_is_not_here_is_said(tmp_path):
    run = world(tmp_path, dict(env_id='NoSuchGame-v0', env={}), data=films(tmp_path))
    assert any('cannot be made here' in n for n in make_benchmark(run, tmp_path/'exam').notes)

def test_clips_of_another_size_or_too_short_are_refused(tmp_path):
    run = world(tmp_path, size=8)
    with pytest.raises(ValueError, match='expected frames of'): held_out(run, films(tmp_path), 2, 4)
    with pytest.raises(ValueError, match='more than 4 frames'): held_out(world(tmp_path), films(tmp_path/'short', frames=4), 2, 4)

def test_two_sizes_of_a_frame_have_two_exams_in_one_folder(tmp_path):
    about = dict(env_id='CartPole-v1', env={}, skip=1)
    small, large = (make_benchmark(world(tmp_path, about, 2, size), tmp_path/'exam', 2, 4, progress=False) for size in (8, 16))
    assert small.frames.shape[2] == 8 and large.frames.shape[2] == 16 and len(list((tmp_path/'exam').iterdir())) == 2

def test_a_game_that_ends_early_is_counted_while_it_is_on(tmp_path):
    run = world(tmp_path, dict(env_id='CartPole-v1', env={}, skip=1), 2)
    benchmark = make_benchmark(run, tmp_path/'exam', 2, 64, progress=False)
    assert (benchmark.status[:, -1] == -1).any() and benchmark.notes
    report, _ = evaluate(run, clips=2, horizon=64, players=('expert',), progress=False)
    rows = report['exams'][0]['rows']['playing']['dream']['psnr']
    assert rows['n'][0] == 2 and rows['n'][-1] < 2 and 'false' not in report['exams'][0]
    assert report['exams'][0]['response']['pixel_ratio']['n'] == 2

@pytest.mark.parametrize('wrong', [dict(clips=1), dict(horizon=0), dict(seeds=0), dict(long=15), dict(players=()), dict(players=('me',)), dict(steps=(0,)), dict(fit=-1), dict(clips=2.5)])
def test_numbers_that_make_no_sense(tmp_path, wrong):
    with pytest.raises((ValueError, TypeError)): evaluate(world(tmp_path), **wrong)
    assert not (tmp_path/'evaluation').exists()

def test_infinite_values_are_no_large_numbers():
    with pytest.raises(ValueError, match='infinite'): bootstrap(torch.tensor([[1.], [torch.inf]]), [0, 1])

def test_shares_of_all_and_none():
    assert wilson(20, 20)[1] == pytest.approx(.8389, abs=1e-3) and wilson(0, 20)[2] == pytest.approx(.1611, abs=1e-3)
    assert all(np.isnan(wilson(0, 0)))
    with pytest.raises(ValueError): wilson(3, 2)
    assert summary(torch.full((2, 1), torch.nan), [0, 1], True) == dict(mean=[None], low=[None], high=[None], n=[0])

def test_a_ratio_of_nothing():
    assert ratio(torch.tensor([torch.nan]), torch.tensor([1.]), [0])['mean'] is None

def test_status_of_a_lander():
    states = np.zeros((4, 8)); states[1:, 6] = 1; states[2:, 7] = 1
    assert lander_status(states, [False, False, False, True]).tolist() == [0, 0, 1, 2]

@pytest.mark.parametrize('fair, context, start', [([1, 1, 1], 1, (0, 3)), ([1, 0, 0, 1, 1, 1, 0, 0], 2, (2, 4)), ([0, 0, 0], 2, (0, 1)), ([0, 0, 1], 3, (0, 3)),
                                                  ([0] * 60 + [1], 2, (0, 1))]) # later than LATE is not looked for
def test_where_a_sequence_begins(fair, context, start): assert fair_start(np.array(fair, bool), context) == start

def test_flights_begin_in_mid_air_and_replay(tmp_path):
    run = world(tmp_path, dict(env_id='LunarLander-v3', env={}, skip=3, tail=8), 4)
    benchmark = make_benchmark(run, tmp_path/'exam', 2, 8, player='held', progress=False)
    assert benchmark.frames.shape == (2, 12, 16, 16, 3)
    assert lander_in_view(benchmark.states[:, 3:]).all() and (benchmark.status[:, 3:] == 0).all() and not benchmark.notes
    assert np.array_equal(resimulate(benchmark, benchmark.actions, progress=False), benchmark.frames)
    assert np.array_equal(benchmark.part(slice(1)).starts, benchmark.starts[:1])
