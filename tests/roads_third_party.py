"""Install other people's environments into a new virtual environment, and walk their roads: tests/test_third_party.py.
Run: python tests/roads_third_party.py [FOLDER of the environment]. About ten minutes, most of them downloads and software rendering."""
import os, subprocess, sys, tempfile, venv
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PACKAGES = 'ale-py', 'minigrid', 'gymnasium[mujoco]', 'highway-env', 'pytest'

def main(folder):
    python = Path(folder)/'bin'/'python'
    if not python.exists(): venv.create(folder, with_pip=True)
    install = [str(python), '-m', 'pip', 'install', '-q']
    subprocess.run([*install, '-e', f'{REPO}[video,play]'], check=True)
    missing = [p for p in PACKAGES if subprocess.run([*install, p]).returncode] # that road is skipped, which pytest says
    if missing: print('not installed here:', *missing)
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'DISPLAY', 'WAYLAND_DISPLAY', 'MUJOCO_GL')} # no screen
    test = [str(python), '-m', 'pytest', '-q', '-rs', '--durations=0', str(REPO/'tests'/'test_third_party.py')]
    return subprocess.run(test, env=env | dict(OMP_NUM_THREADS='1'), cwd=folder).returncode

if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as scratch: sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else scratch))
