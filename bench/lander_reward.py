"""The reward head of a LunarLander world: recorded with what the simulator says, trained on real and on dreamed latents, its errors by horizon.

    python bench/lander_reward.py RUN OUT [--clips 384] [--steps 1500]

RUN is a run's directory or the name of one that comes with oniris; OUT/reward is what belongs beside it (RUN/reward is then used by
`gymnasium.make('oniris/Dream-v0', run=RUN)`). A few minutes on one core; started again, it goes on. Landed means +100, crashed -100, and
the rest is the game's shaping, summed over the frames that one picture stands for."""
import argparse, json, time
from pathlib import Path
import torch
from oniris.data.record import record
from oniris.dream.reward import describe_errors, train_reward
from oniris.dream.run import load_run

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('run'); ask.add_argument('out')
    ask.add_argument('--clips', type=int, default=384); ask.add_argument('--frames', type=int, default=48)
    ask.add_argument('--steps', type=int, default=1500); ask.add_argument('--dreams', type=int, default=256)
    ask.add_argument('--data', help='a dataset with rewards, instead of a new recording')
    asked = ask.parse_args()
    torch.set_num_threads(1)
    run, out, began = load_run(asked.run, 'cpu'), Path(asked.out), time.monotonic()
    data = Path(asked.data or out / 'rewarded')
    if not (data / 'index.json').is_file():
        about = run.about # ends belong into the clips: half of them are taken from the last stretch of an episode
        record(about['env_id'], data, asked.clips, asked.frames, run.size[0], 'mixed', 2027, about.get('skip', 1), 8, per_episode=2, workers=1, **about.get('env', {}))
    _, errors = train_reward(run, asked.steps, data, out / 'reward', dreams=asked.dreams, every=asked.steps)
    print(describe_errors(errors))
    print(f'{time.monotonic() - began:.0f} s -> {out}/reward; copy it beside the world: cp -r {out}/reward {run.path}/')

if __name__ == '__main__': main()
