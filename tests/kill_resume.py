"""Kills a training command at random moments, resumes it, and compares what it leaves behind with an uninterrupted run's, byte by byte.

python tests/kill_resume.py [--kills 20] [--seed 0] [--file 'GLOB' ...] -- COMMAND with {out} where its directory goes

    python tests/kill_resume.py -- python tests/small_run.py --out {out} --steps 60 --every 5
    python tests/kill_resume.py --kills 20 -- oniris_train --data D --out {out} --preset lander_cpu --steps 100 --every 10 --seed 0

The command is run to its end once, and once more to see how long it takes to find that there is nothing left to do. Then it is started again and
again with another directory, and its whole process group gets SIGKILL at a random moment: while it starts, within a step, in the middle of a save.
After the last kill it is let run to its end. A run that ends before all kills are spent is compared too, and another one begins.
Each GLOB names files of the run's directory; of several matches the last in alphabetical order counts, the newest checkpoint's.
By default: the weights, the optimizer, every other file of the newest checkpoint that has the weights' directory, and of each log.jsonl all but the times.
"""
import argparse, json, os, random, signal, subprocess, sys, tempfile, time
from pathlib import Path

def start(command, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f'{out}.errors', 'w') as f:
        return subprocess.Popen([c.replace('{out}', str(out)) for c in command], start_new_session=True, stdout=subprocess.DEVNULL, stderr=f)

def check(process, command, out, killed=0):
    if process.returncode: sys.exit(f"{' '.join(command)}\nfailed ({process.returncode}) after {killed} kills:\n{Path(f'{out}.errors').read_text()[-3000:]}")

def kill(process):
    try: os.killpg(process.pid, signal.SIGKILL) # its workers too
    except ProcessLookupError: pass
    process.wait()

def logs(out): # os.walk, unlike glob, bears that directories are renamed while it looks
    return [Path(d)/'log.jsonl' for d, _, files in os.walk(out) if 'log.jsonl' in files]

def lines(out, since=0.):
    "Steps in the logs of a run, if one of them was written after `since`"
    found = logs(out)
    return sum(f.read_text().count('\n') for f in found) if any(f.stat().st_mtime > since for f in found) else 0

def wait(process, seconds):
    "Lets it run; did it come to its end?"
    try: process.wait(seconds)
    except subprocess.TimeoutExpired: return False
    return True

def wait_for(process, out, goal):
    "Lets it run until its logs have `goal` steps; did it come to its end before?"
    began = time.time()
    while lines(out, began) < goal or not any(f.stat().st_mtime > began for f in logs(out)):
        if wait(process, .01): return True
    return False

def to_the_end(command, out):
    "Seconds that the command takes"
    t, process = time.monotonic(), start(command, out)
    try: process.wait()
    except BaseException: kill(process); raise
    check(process, command, out)
    return time.monotonic() - t

def newest(out, globs):
    "Path relative to `out` -> the file"
    files = [sorted(p for p in out.glob(g) if p.is_file()) for g in globs]
    if missing := [g for g, f in zip(globs, files) if not f]: sys.exit(f'{out}: nothing matches {missing}')
    return {str(f[-1].relative_to(out)): f[-1] for f in files}

def left_behind(out, globs):
    if globs: return newest(out, globs)
    weights = sorted(out.glob('**/step-*/model.safetensors'))
    runs = {w.parent.parent: w.parent for w in weights} # the last one of each run stays
    if not runs: sys.exit(f'{out}: no checkpoint')
    return {str(f.relative_to(out)): f for d in runs.values() for f in sorted(d.iterdir()) if f.name not in ('state.json', 'manifest.json')}

def log(out):
    "Every log of the run, without the times, which are nobody's business"
    drop = lambda line: {k: v for k, v in json.loads(line).items() if k != 'seconds'}
    return {str(p.relative_to(out)): list(map(drop, p.read_text().splitlines())) for p in sorted(out.glob('**/log.jsonl'))}

def compare(whole, other, globs):
    a, b = left_behind(whole, globs), left_behind(other, globs)
    different = sorted(set(a) ^ set(b)) + [k for k in sorted(set(a) & set(b)) if a[k].read_bytes() != b[k].read_bytes()]
    la, lb = log(whole), log(other)
    different += [k for k in sorted({*la, *lb}) if la.get(k) != lb.get(k)]
    for k in [*a, *la]: print(f"  {'DIFFERENT' if k in different else 'same     '}  {k}")
    return not different

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--kills', type=int, default=20)
    p.add_argument('--seed', type=int, default=0, help='of the moments')
    p.add_argument('--file', action='append', default=[], help='what to compare')
    p.add_argument('--keep', help='directory for the runs, which are then kept')
    argv = sys.argv[1:]
    if '--' not in argv: p.error('expected -- and a command')
    i = argv.index('--')
    a, command = p.parse_args(argv[:i]), argv[i + 1:]
    if not any('{out}' in c for c in command): p.error('expected {out} somewhere in the command')
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(a.keep or tmp)
        seconds = to_the_end(command, tmp/'whole')
        startup, total = min(to_the_end(command, tmp/'whole'), seconds), lines(tmp/'whole')
        print(f'uninterrupted: {seconds:.1f} s and {total} steps; {startup:.1f} s of it to start', flush=True)
        rng, killed, runs, same, where = random.Random(a.seed), 0, 0, True, []
        while killed < a.kills:
            out, runs = tmp/f'killed-{runs}', runs + 1
            while killed < a.kills:
                process = start(command, out)
                if rng.random() < .2: over = wait(process, rng.uniform(0, startup))
                else: # about as much progress a time that `kills` of them make a run, and then some part of a step more
                    goal = min(total - 1, lines(out) + rng.randint(0, 2 * total // a.kills))
                    over = wait_for(process, out, goal) or wait(process, rng.uniform(0, seconds / total))
                if over: check(process, command, out, killed); break # it came to its end
                kill(process); killed += 1
                where.append(lines(out))
            to_the_end(command, out)
            print(f'run {runs}: killed when its log had come to step', *where, flush=True)
            where, same = [], compare(tmp/'whole', out, a.file) and same
        print(f'{killed} kills, {runs} runs: {"the same bytes" if same else "NOT the same"}')
        sys.exit(not same)

if __name__ == '__main__': main()
