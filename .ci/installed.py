"""Run by .ci/run with the interpreter of the environment given, outside the repository: the installed package imports whole, and dreams."""
import importlib, importlib.metadata, pkgutil, subprocess, sys
from pathlib import Path

env = Path(sys.argv[1]).resolve()
import oniris
assert env in Path(oniris.__file__).resolve().parents, f'oniris came from {oniris.__file__}, expected it below {env}'
assert oniris.__version__ == importlib.metadata.version('oniris')
names = sorted(m.name for m in pkgutil.walk_packages(oniris.__path__, 'oniris.') if not m.ispkg and not m.name.rpartition('.')[2].startswith('_'))
for name in names: importlib.import_module(name)
for name in oniris.__all__: getattr(oniris, name)                         # the public face
assert len(importlib.import_module('oniris.games.lander').lander_clips()['frames']) # the package data came along
for script in importlib.metadata.entry_points(group='console_scripts'):
    if script.value.startswith('oniris.'): subprocess.run([env/'bin'/script.name, '--help'], check=True, stdout=subprocess.DEVNULL)
subprocess.run([env/'bin'/'oniris_dream', '--frames', '2', '--out', 'dream.gif'], check=True, stdout=subprocess.DEVNULL) # so did the world that it dreams
print(f'oniris {oniris.__version__} imports with fastcore {importlib.metadata.version("fastcore")}: {len(names)} modules')
