"""The reward head of a LunarLander world: recorded with what the simulator says, trained on real and on dreamed latents, its errors by horizon.

    python -m bench.lander_reward RUN OUT [--clips 1024] [--thrown 512] [--steps 2500]

RUN is a run's directory or the name of one that comes with oniris; OUT/reward is what belongs beside it (RUN/reward is then used by
`gymnasium.make('oniris/Dream-v0', run=RUN)`). Ten minutes on one core; started again, it goes on. Half as many clips as of flights
begin thrown in at any tilt (`bench/lander_thrown.py`): eyes that shall know a tilt when they see one have to have seen some. Landed means +100, crashed -100, and
the rest is the game's shaping, summed over the frames that one picture stands for."""
import argparse, json, time
from pathlib import Path
import torch
from oniris.data.record import record
from oniris.dream.reward import describe_errors
from oniris.dream.train_reward import rewarded, train_reward
from oniris.dream.run import load_run

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('run'); ask.add_argument('out')
    ask.add_argument('--clips', type=int, default=1024); ask.add_argument('--thrown', type=int, default=512)
    ask.add_argument('--steps', type=int, default=2500); ask.add_argument('--sight', type=int, default=1200); ask.add_argument('--dreams', type=int, default=768)
    ask.add_argument('--data', nargs='+', help='datasets with rewards, in clips of one length, instead of new recordings')
    asked = ask.parse_args()
    torch.set_num_threads(1)
    run, out, began = load_run(asked.run, 'cpu'), Path(asked.out), time.monotonic()
    data = asked.data or [out / 'flown', out / 'thrown']
    if not asked.data: # ends belong into the clips: half of them are taken from the last stretch of an episode
        common = dict(frames=32, size=run.size, skip=run.about.get('skip', 1), per_episode=2, workers=1)
        record(run.about['env_id'], data[0], asked.clips, policy='held', seed=2027, tail=16, **common)
        record(run.about['env_id'], data[1], asked.thrown, policy='random+held+heuristic+mixed', seed=2028, tail=20, after=.5,
               wrap='bench.lander_thrown:thrown', **common)
    loaded = rewarded(run, data, 'train', mirror=True), rewarded(run, data, 'test')
    _, errors = train_reward(run, asked.steps, data, out / 'reward', loaded=loaded, dreams=asked.dreams, sight=asked.sight, share=.3)
    print(describe_errors(errors))
    print(f'{time.monotonic() - began:.0f} s -> {out}/reward; copy it beside the world: cp -r {out}/reward {run.path}/')

if __name__ == '__main__': main()
