"""Every preset's steps on a card that is not there (`fake_gpu.py`): devices, types, waits, memory. The small presets here; CI's script runs all."""
import subprocess, sys
from pathlib import Path
import pytest

def test_presets_fit_a_card():
    command = [sys.executable, '-W', 'ignore', str(Path(__file__).parent/'fake_gpu.py'), '--presets', 'lander_cpu']
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77: pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
