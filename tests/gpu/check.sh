#!/usr/bin/env bash
# Correctness, speed and feeding on one GPU, in one command and at most 8 minutes, without network:
#
#     bash tests/gpu/check.sh [OUT] [--device cpu|cuda] [--tiny] [--seconds N] [--only correctness|speed|real]
#
# OUT (default: $OUT, else gpu-check) gets check.md (tables for docs/benchmarks.md), speeds.csv (lines for
# src/tubelet/bench/speeds.csv), speed.csv, check.json, check.log, and check.jsonl, which is written line by line, so that
# a killed check loses nothing. The status is not 0 if a check failed.
# If there is a folder .whl in the repository's root, its wheels are installed into a temporary directory: what Python
# ($PYTHON, default python3) lacks there. `--device cpu --tiny` tries the same code out on a machine without a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G '.whl/*.whl' >/dev/null; then
  "$python" -m pip install -q --no-index --find-links .whl --no-deps --no-compile --target "$site" .whl/*.whl
fi
export PYTHONPATH="$PWD/src:$PWD/tests:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if ! "$python" -c 'import wandb' 2>/dev/null; then # a large package, and nothing is logged to it here
  mkdir -p "$site/wandb"
  echo 'run = None' >"$site/wandb/__init__.py"
fi
"$python" tests/gpu/check.py "$@"
