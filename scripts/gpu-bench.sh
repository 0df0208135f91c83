#!/usr/bin/env bash
# Speed on this machine's GPU. First the whole engine beside vLLM's figures and the
# floor (pagoda bench peers, about six minutes on an H200; the report is in ./peers),
# then the backend alone: the operations of a step, and swaps, as Go benchmark lines.
# With a path (sm_90a, generic, plain), which the backend's benchmarks alone can
# force, its decode and prefill steps instead of the engine's:
#
#   ./gpu-bench.sh [path]
set -euo pipefail
cd "$(dirname "$0")"
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.draw --format=csv || exit 5
bench() { ./kernels-cuda.test ${path:+-path "$path"} -test.run '^$' -test.bench "$1" -test.benchtime "$2" -test.timeout 30m; }
path=${1:-}
if [ -z "$path" ]; then
	./pagoda bench peers --quiet --output-dir peers
else
	bench Decode 50x
	bench Prefill 6x
fi
bench Swap 20x
bench Profile 20x
nvidia-smi --query-gpu=clocks.sm,power.draw --format=csv
