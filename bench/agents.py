"""An agent learned in a run's dreams, from nothing to a policy, in one command.

    python bench/agents.py --run RUN --data DATA --out DIR --minutes 2 --device cuda [--score 100]

(a) reads DATA (frames, or latents of the run's codec, with rewards and ends) and trains the reward head on real and on dreamed latents;
(b) trains an actor-critic in the dream for --minutes, its learning curve as JSON lines; (c) writes DIR/reward and DIR/policy, a few hundred
kilobytes each, the policy every 20 seconds, so that an interruption loses nothing; (d) with --score N plays N episodes of the real game.
--head DIR skips (a), --policy DIR skips (a) to (c). Only --score needs gymnasium. `--rehearse` makes everything tiny."""
import argparse, json, sys, tempfile, time, warnings
from pathlib import Path
from unittest import mock

try: import gymnasium # noqa
except ImportError: # on a lent card: nobody plays there, a dataset only has to know how wide its numbered actions are
    class Discrete:
        def __init__(self, n, start=0, **more): self.n, self.start = n, start
    fake = mock.MagicMock()
    fake.spaces.Discrete, fake.spaces.flatdim = Discrete, lambda space: space.n
    sys.modules |= {'gymnasium': fake, 'gymnasium.spaces': fake.spaces, 'gymnasium.envs': fake.envs, 'gymnasium.envs.registration': fake.envs.registration}
import torch
from oniris.agents.actor_critic import ActorCritic, Learning, train_agent
from oniris.core import write_atomic
from oniris.dream.imagine import LatentDreamer
from oniris.dream.reward import describe_errors, RewardHead
from oniris.dream.train_reward import rewarded, train_reward
from oniris.dream.run import load_run
from oniris.nn import attention

BEGAN = time.monotonic()
def say(**what): print(json.dumps(dict(at=round(time.monotonic() - BEGAN, 1)) | what), flush=True)

class Watch:
    "Prints a line and saves the policy, now and then"
    def __init__(self, policy, out, line=5., save=20.):
        self.policy, self.out, self.each, self.next, self.frames = policy, out, dict(line=line, save=save), dict(line=0., save=save), 0
        self.curve, self.begin = [], time.monotonic()
    def due(self, what):
        now = time.monotonic() - self.begin
        if now < self.next[what]: return False
        self.next[what] = now + self.each[what]
        return True
    def __call__(self, step, logs):
        self.frames += logs.get('frames', 0)
        if 'paid' in logs and self.due('line'):
            kept = 'paid', 'value', 'ended', 'ended_well', 'explained', 'entropy', 'clipped', 'critic', 'grad', 'lr'
            record = dict(step=step, frames=self.frames, seconds=round(time.monotonic() - self.begin, 1))
            self.curve.append(record | {k: float(f'{float(logs[k]):.4g}') for k in kept if k in logs})
            say(**self.curve[-1])
            write_atomic(self.out / 'curve.json', json.dumps(self.curve).encode())
        if self.due('save'): self.policy().save_pretrained(self.out / 'policy', half=True)

def make_head(a, run, real, held, out, work):
    "(a): the reward head"
    if a.head: return RewardHead.from_pretrained(a.head)
    gpu = next(run.denoiser.parameters()).is_cuda
    sizes = dict(batch=64, dreams=len(real)) if gpu else dict(batch=16, dreams=256)
    if a.rehearse: sizes = dict(batch=8, dreams=8)
    if a.dreams: sizes['dreams'] = a.dreams
    steps = a.headsteps or (4 if a.rehearse else 4000 if gpu else 1500)
    head, errors = train_reward(run, steps, a.data, work / 'reward', ahead=a.ahead, loaded=(real, held), minutes=a.headminutes, seed=a.seed,
                                every=10**6, bar=False, **sizes)
    head.save_pretrained(out / 'reward', half=True)
    write_atomic(out / 'reward' / 'errors.json', json.dumps(errors, indent=1).encode())
    print(describe_errors(errors), flush=True)
    return head

def make_policy(a, run, real, head, out, work):
    "(b), (c): the agent"
    known = []
    def policy(): return known[0]
    watch = Watch(policy, out)
    sizes = dict(dreams=8, horizon=4, parts=2, epochs=2)
    if not a.rehearse: sizes = dict(dreams=a.batch or (2048 if a.device == 'cuda' else 96), horizon=a.horizon, parts=a.parts, epochs=a.epochs)
    how = Learning(gamma=a.gamma, lam=a.lam, lr=a.lr, entropy=a.entropy, tune=a.tune or None, **sizes)
    dreamer = dict(graph=a.graph) | (dict(amp=torch.bfloat16) if a.half else {})
    def remember(net): known.append(net)
    trained = train_agent(run, real, work / 'agent', steps=8 if a.rehearse else a.steps, head=head, how=how, seed=a.seed, minutes=a.minutes or None,
                          watch=watch, bar=False, began=remember, dreamer=dreamer, every=10**6 if a.rehearse else how.steps * 10)
    trained.save_pretrained(out / 'policy', half=True)
    say(saved=str(out / 'policy'), frames=watch.frames)
    return trained

def play(a, run, policy, out):
    "(d): the real game"
    from oniris.agents.score import describe_score, Pilot, play_game, play_known, score
    found = dict(agent=score(play_game(run, Pilot(run, policy), a.score, a.seed)), sampled=score(play_game(run, Pilot(run, policy, True), a.score, a.seed)))
    for name in ('heuristic', 'random'):
        try: found[name] = score(play_known(run, name, a.score, a.seed))
        except ValueError as e: print(f'{name}: {e}')
    write_atomic(out / 'score.json', json.dumps(found, indent=1).encode())
    for name, said in found.items(): print(describe_score(name, said), flush=True)

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--run', default='lander'); ask.add_argument('--data', nargs='+'); ask.add_argument('--out', type=Path, required=True)
    ask.add_argument('--work', type=Path, help='where checkpoints lie; a temporary directory if not given')
    ask.add_argument('--minutes', type=float, default=0., help='of the agent; no limit if 0'); ask.add_argument('--steps', type=int, default=3000, help='of the agent'); ask.add_argument('--headminutes', type=float, default=.5)
    ask.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    ask.add_argument('--score', type=int, default=0); ask.add_argument('--seed', type=int, default=0)
    ask.add_argument('--head', help='a reward head to use'); ask.add_argument('--policy', help='a policy to score')
    ask.add_argument('--headsteps', type=int, default=0); ask.add_argument('--dreams', type=int, default=0); ask.add_argument('--ahead', type=int, default=16)
    ask.add_argument('--batch', type=int, default=0, help='dreams of a batch; 0 for 96, or 2048 on a GPU'); ask.add_argument('--horizon', type=int, default=24)
    ask.add_argument('--parts', type=int, default=6); ask.add_argument('--epochs', type=int, default=6)
    ask.add_argument('--half', action='store_true', help='dream in bfloat16: twice as fast on a CPU that has it')
    ask.add_argument('--gamma', type=float, default=.99); ask.add_argument('--lam', type=float, default=.95)
    ask.add_argument('--lr', type=float, default=1e-3); ask.add_argument('--entropy', type=float, default=.01)
    ask.add_argument('--tune', action='store_true', help='the eyes learn with the agent'); ask.add_argument('--graph', action='store_true', help='capture a dreamed step as a CUDA graph')
    ask.add_argument('--rehearse', action='store_true')
    a = ask.parse_args()
    torch.set_num_threads(1) if a.device == 'cpu' else None
    a.out.mkdir(parents=True, exist_ok=True)
    work = a.work or Path(tempfile.mkdtemp())
    run = load_run(a.run, a.device)
    say(run=str(run.path), device=a.device, torch=torch.__version__, dreamer=LatentDreamer.from_run(run, action_space=None).steps)
    with mock.patch.object(attention, 'attend_flex', attention.attend_grouped): # flex takes half a minute to compile
        if a.policy: policy = ActorCritic.from_pretrained(a.policy).to(a.device)
        else:
            real = rewarded(run, a.data, 'train', mirror=True, bar=False)
            held = None if a.head else rewarded(run, a.data, 'test', bar=False)
            say(clips=len(real), held_out=0 if held is None else len(held), states=real.states is not None)
            head = make_head(a, run, real, held, a.out, work)
            say(head='done')
            policy = make_policy(a, run, real, head, a.out, work)
        if a.score: play(a, run, policy, a.out)

if __name__ == '__main__':
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        main()
