#!/usr/bin/env bash
# The first minutes on a real card, one command: bench/gpu.sh [--minutes 60] [--out bench/gpu.json]
# Rehearsal on a CPU with a tiny preset, so that a card's time is not spent on a typing error: bench/gpu.sh --rehearse
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=PASSIVE
exec python -W ignore bench/gpu.py "$@"
