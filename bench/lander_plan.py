"""Planning on LunarLander: before every frame the cross-entropy method dreams of futures with the shipped world and its head, and takes the first action of the best.

    python bench/lander_plan.py [--run lander] [--horizons 4 8] [--episodes 4] [--number 16] [--rounds 2] [--out bench/results/lander_plan.json]

Fresh episodes of the real game, the same ones for every horizon (and as many of those that `oniris_agent` scores). Seconds are processor seconds of one thread.
Written after every horizon; what is there is not played again."""
import argparse, json, platform, time
from pathlib import Path
import torch
from oniris.agents.plan import Planner
from oniris.agents.score import describe_score, play_game, play_known, score
from oniris.core import write_atomic
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--run', default='lander')
    p.add_argument('--horizons', type=int, nargs='+', default=[4, 8])
    p.add_argument('--episodes', type=int, default=4)
    p.add_argument('--number', type=int, default=16, help='sequences of a round')
    p.add_argument('--rounds', type=int, default=2)
    p.add_argument('--longest', type=int, default=150, help='frames after which an episode is left')
    p.add_argument('--out', type=Path, default=Path(__file__).parent / 'results' / 'lander_plan.json')
    a = p.parse_args()
    torch.set_num_threads(1)
    run = load_run(a.run, 'cpu')
    head = RewardHead.from_pretrained(run.path / 'reward') if (run.path / 'reward').is_dir() else run.reward
    about = dict(number=a.number, rounds=a.rounds, episodes=a.episodes, longest=a.longest, torch=torch.__version__, machine=platform.processor() or platform.machine())
    page = json.loads(a.out.read_text()) if a.out.exists() else about | dict(horizons={}, known={n: score(play_known(run, n, a.episodes, longest=a.longest)) for n in ('heuristic', 'random')})
    for horizon in a.horizons:
        if str(horizon) in page['horizons']: continue
        start = time.process_time()
        pilot = Planner(run, head, horizon=horizon, number=a.number, rounds=a.rounds)
        played = play_game(run, pilot, a.episodes, together=a.episodes, longest=a.longest)
        decisions = sum(g.frames for g in played)
        page['horizons'][horizon] = score(played) | dict(seconds=(time.process_time() - start) / decisions, decisions=decisions, paid_each=[round(g.paid, 1) for g in played])
        write_atomic(a.out, (json.dumps(page, indent=1) + '\n').encode())
        print(describe_score(f'{horizon} frames', page['horizons'][horizon]), f"{page['horizons'][horizon]['seconds']:.2f} s a decision", flush=True)

if __name__ == '__main__': main()
