#!/usr/bin/env bash
# Fetches CUDA's compiler and headers, the pinned wheels of requirements-cuda.txt,
# into .cache/cuda. No toolkit, no root, no install script.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh python3
python=python3
if ! python3 -m pip --version >/dev/null 2>&1; then
	python3 -c 'import venv, ensurepip' 2>/dev/null ||
		{ echo "python3 has neither pip nor a venv module: install one (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	python3 -m venv .cache/venv/cuda
	python=.cache/venv/cuda/bin/python
fi
rm -rf .cache/cuda.new
"$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
	--target .cache/cuda.new -r requirements-cuda.txt
rm -rf .cache/cuda
mv .cache/cuda.new .cache/cuda
touch .cache/cuda/nvidia/cu13/bin/nvcc # newer than its list
