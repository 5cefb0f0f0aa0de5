"""Planning on LunarLander: the cross-entropy method dreams of futures in a world, and follows the best for two frames, by horizon, without and with a critic for what comes after.

    python bench/lander_plan.py --run RUN --policy POLICY [--plans alone-4 critic-4 flown-4 …] [--episodes 12] [--number 16] [--rounds 2] [--every 2] [--minutes 14] [--search]

alone-T: T frames ahead, what they pay. critic-T: and what the agent's critic expects after them. flown-T: and a quarter of the sequences are the agent's own.
led-T: all of them are, but for the first action. -n32, -r1, -e1 behind it change number, rounds and every. Fresh episodes of the real game, the same ones for all, those that `oniris_agent` scores; the agent,
the heuristic (which is told the state) and chance play them too. Seconds are processor seconds of one thread. Written after every few flights; what is there
is not flown again, and with --minutes it stops in time: call it again."""
import argparse, json, platform, time
from pathlib import Path
import torch
from oniris.agents.actor_critic import ActorCritic
from oniris.agents.plan import Planner
from oniris.agents.score import Pilot, Played, describe_score, play_game, play_known, score
from oniris.core import write_atomic
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run

def settings(name, a): # 'critic-8-r1' -> arguments of `Planner`
    kind, horizon, *changes = name.split('-')
    said = dict(horizon=int(horizon), number=a.number, rounds=a.rounds, every=a.every) | {dict(n='number', r='rounds', e='every')[c[0]]: int(c[1:]) for c in changes}
    own = dict(flown=said['number'] // 4, led=said['number'] - 1) # all but the plan so far
    return kind, said | dict(value=kind != 'alone', flown=own.get(kind, 0), lead=int(kind == 'led'))

def summary(flights): return score([Played(*f) for f in flights]) | dict(flights=[[round(f[0], 1), *f[1:3], round(f[3], 1)] for f in flights])

SEARCHES = (8, 1), (16, 1), (16, 2), (32, 2), (64, 2)

class Searches:
    "A pilot that flies by the agent and, at some frames, lets planners of different diligence search from there"
    def __init__(self, agent, planners, at=(6, 16, 26)): self.agent, self.planners, self.at, self.found = agent, planners, at, {name: [] for name in planners}
    def begin(self, games):
        self.tick = 0
        for pilot in (self.agent, *self.planners.values()): pilot.begin(games)
    @torch.no_grad()
    def __call__(self, pictures, actions):
        for name, planner in self.planners.items():
            planner._look(pictures, actions)
            if self.tick not in self.at: continue
            start = time.process_time()
            planner._plan()
            spent, rows = time.process_time() - start, torch.arange(len(pictures))
            again = planner._dream(planner.plan[:, None].repeat(1, 8, 1), rows, None).mean(1) # dreamed anew: the best of many was lucky, too
            self.found[name].append((again.tolist(), spent / len(pictures)))
        self.tick += 1
        return self.agent(pictures, actions)

def search(run, head, policy, horizon=8, games=4): # -> what plans are worth, by how long they were searched for
    planners = {f'{n} x {r}': Planner(run, head, policy, horizon=horizon, number=n, rounds=r, amp=torch.bfloat16) for n, r in SEARCHES}
    planners['16 x 2, 4 flown'] = Planner(run, head, policy, horizon=horizon, number=16, rounds=2, flown=4, amp=torch.bfloat16)
    planners['16 x 2, single precision'] = Planner(run, head, policy, horizon=horizon, number=16, rounds=2)
    pilot = Searches(Pilot(run, policy), planners)
    play_game(run, pilot, games, together=games, longest=max(pilot.at) + 2, bar=False)
    return {name: dict(worth=[v for w, _ in found for v in w], seconds=sum(s for _, s in found) / len(found)) for name, found in pilot.found.items()}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--run', default='lander')
    p.add_argument('--policy', help="the agent's directory; the run's own if not given")
    p.add_argument('--plans', nargs='*', default=[f'{k}-{t}' for t in (4, 8, 14) for k in ('alone', 'critic', 'flown')])
    p.add_argument('--episodes', type=int, default=12)
    p.add_argument('--together', type=int, default=4, help='flights side by side')
    p.add_argument('--number', type=int, default=16, help='sequences of a round')
    p.add_argument('--rounds', type=int, default=2)
    p.add_argument('--every', type=int, default=2, help='frames for which a plan is followed')
    p.add_argument('--longest', type=int, default=200, help='frames after which an episode is left')
    p.add_argument('--minutes', type=float, default=14.)
    p.add_argument('--search', action='store_true', help='measure what more sequences and rounds find, first')
    p.add_argument('--out', type=Path, default=Path(__file__).parent / 'results' / 'lander_plan.json')
    a = p.parse_args()
    torch.set_num_threads(1)
    run, begin = load_run(a.run, 'cpu'), time.process_time()
    head = RewardHead.from_pretrained(run.path / 'reward')
    policy = ActorCritic.from_pretrained(a.policy or run.path / 'policy')
    about = dict(world=run.denoiser.fingerprint(), head=head.fingerprint(), policy=policy.fingerprint(), longest=a.longest)
    page = json.loads(a.out.read_text()) if a.out.exists() else {}
    if page.get('about', about) != about: raise SystemExit(f"{a.out}: expected plans in this world ({about}), got {page['about']}: give another --out")
    page = dict(about=about, torch=torch.__version__, machine=platform.processor() or platform.machine(), minutes=0., plans={}, known={}) | page
    def write(): write_atomic(a.out, (json.dumps(page, indent=1) + '\n').encode())
    def played(pilot, count, first=0): return [list(g) for g in play_game(run, pilot, count, together=a.together, longest=a.longest, bar=False, first=first)]
    known = dict(agent=lambda: played(Pilot(run, policy), a.episodes)) | {n: lambda n=n: play_known(run, n, a.episodes, longest=a.longest) for n in ('heuristic', 'random')}
    for name, play in known.items():
        if page['known'].get(name, {}).get('episodes', 0) < a.episodes:
            page['known'][name] = summary([list(g) for g in play()])
            print(describe_score(name, page['known'][name]), flush=True)
            write()
    if a.search:
        page['search'] = search(run, head, policy)
        write()
        for name, said in page['search'].items(): print(f"{name:>26}: worth {sum(said['worth']) / len(said['worth']):.1f}, {said['seconds']:.2f} s", flush=True)
    for name in a.plans:
        kind, said = settings(name, a)
        entry = page['plans'].setdefault(name, said | dict(seconds=0., decisions=0, flights=[]))
        pilot = Planner(run, head, policy if kind != 'alone' else None, amp=torch.bfloat16, **said)
        while (first := len(entry['flights'])) < a.episodes:
            if time.process_time() - begin > 60 * a.minutes: return print('time is up: call again', flush=True)
            start = time.process_time()
            new = played(pilot, min(a.together, a.episodes - first), first)
            spent, more = time.process_time() - start, sum(f[1] for f in new)
            total = entry['seconds'] * entry['decisions'] + spent
            entry |= dict(decisions=entry['decisions'] + more, seconds=total / (entry['decisions'] + more)) | summary(entry['flights'] + new)
            page['plans'][name], page['minutes'] = entry, page['minutes'] + spent / 60
            write()
            print(describe_score(name, entry), f"{entry['seconds']:.3f} s a decision, {spent:.0f} s", flush=True)

if __name__ == '__main__': main()
