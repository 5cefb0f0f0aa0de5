"""One process, two processes under `accelerate launch` (gloo, on the CPU), and accumulation take the same steps: losses agree to 1e-5.

python tests/several.py [--steps 12] [--fsdp]
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
import torch
from safetensors.torch import load_file

here = Path(__file__).parent
# Accelerate starts several processes on a CPU only through MPI; told that they are for GPUs, and then that there are none, it starts them by itself
TWO = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no']

def run(out, launcher, *more, env=()):
    command = [*launcher, str(here/'small_run.py'), '--out', str(out), *map(str, more)]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE', 'ACCELERATE_USE_CPU': 'true', **dict(env)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    log = [json.loads(line) for line in (out/'log.jsonl').read_text().splitlines()]
    losses = torch.tensor([[r['loss'], r['normalized'], r['grad']] for r in log], dtype=torch.float64)
    return losses, load_file(sorted(out.glob('step-*'))[-1]/'model.safetensors'), done.stdout.count('"reason": "done"')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--steps', type=int, default=12)
    p.add_argument('--fsdp', action='store_true', help='also with the weights sharded over the two processes')
    a = p.parse_args()
    ways = {'one process, whole batch': ([sys.executable], (), ()), 'one process, two parts': ([sys.executable], ('--accumulate', 2), ()),
            'two processes': (TWO, (), ()), 'two processes, two parts each': (TWO, ('--accumulate', 2), ())}
    if a.fsdp: ways['two processes, sharded (FSDP)'] = (TWO, (), {'ACCELERATE_USE_FSDP': 'true', 'FSDP_VERSION': '2'}.items())
    with tempfile.TemporaryDirectory() as tmp:
        results = {name: run(Path(tmp)/str(i), launcher, '--steps', a.steps, *more, env=env) for i, (name, (launcher, more, env)) in enumerate(ways.items())}
    (losses, weights, _), ok = next(iter(results.values())), True
    for name, (l, w, processes) in results.items():
        assert processes == (2 if name.startswith('two') else 1), f'{name}: {processes} processes came to their end'
        difference = (l / losses - 1).abs().max().item()
        turned = max((w[k] - weights[k]).abs().max().item() for k in weights)
        ok &= difference < 1e-5
        print(f'{name:32s} last loss {l[-1, 0]:.7f}   relative difference: {difference:.1e} in a loss or a gradient norm, {turned:.1e} in a weight', flush=True)
    sys.exit(not ok)

if __name__ == '__main__': main()
