#!/usr/bin/env bash
# Speed on this machine's GPU: decode and prefill steps of Qwen2.5's true shapes
# with random weights, the operations of a step, and swaps. Prints Go benchmark
# lines; a path may be forced (sm_90a, generic, plain):
#
#   ./gpu-bench.sh [path]
set -euo pipefail
cd "$(dirname "$0")"
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.draw --format=csv || exit 5
bench() { ./kernels-cuda.test ${path:+-path "$path"} -test.run '^$' -test.bench "$1" -test.benchtime "$2" -test.timeout 30m; }
path=${1:-}
bench Decode 50x
bench Prefill 6x
bench Swap 20x
bench Profile 20x
nvidia-smi --query-gpu=clocks.sm,power.draw --format=csv
