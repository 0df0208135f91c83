#!/usr/bin/env bash
# Correctness on this machine's GPU: the conformance suite on every code path, the
# engine and the server from end to end, the code that newer GPUs would compile from
# PTX, and compute-sanitizer where it is installed. Prints a line a part; logs go to ./gpu-check/.
#
# The 0.5B's shape is compared with transformers where python3 has it;
# reference/make.sh compares the others, too.
#
#   ./gpu-check.sh          everything, about twelve minutes
#   ./gpu-check.sh quick    without PTX, sanitizer and the long load, about three
#   ./gpu-check.sh PART…    these alone: driver, doctor, conformance, engine, steady, idle,
#                           serve, profile, reference, ptx, memcheck-generic, synccheck-generic,
#                           racecheck-generic, initcheck-generic, and the last four of sm_90a
set -uo pipefail
cd "$(dirname "$0")"
logs=gpu-check
mkdir -p $logs
failed=0
quick=
[ "${1:-}" = quick ] && quick=1 && shift
only=" $* " # parts, all if there are none

chosen() { [ -z "${only// /}" ] || [[ $only == *" $1 "* ]]; }
show() { # part, pattern of lines of a log, log
	! chosen "$1!" || grep -hE "$2" "$logs/$3" | sed 's/^ *[a-z_]*_test.go:[0-9]*: //; s/^/             /'
}

part() { # name, log pattern that must not be there or "", command…
	local name=$1 bad=$2 start=$SECONDS rc=0
	shift 2
	chosen $name || return 0
	only=${only/ $name / $name! } # it was there
	"$@" >"$logs/$name.log" 2>&1 || rc=$?
	if [ $rc != 0 ] || { [ -n "$bad" ] && grep -qE "$bad" "$logs/$name.log"; }; then
		printf '%-12s FAILED (%ds): see %s\n' "$name" $((SECONDS - start)) "$logs/$name.log"
		failed=1
	else
		printf '%-12s ok     (%ds), %d cases\n' "$name" $((SECONDS - start)) "$(grep -c -- '--- PASS' "$logs/$name.log")"
	fi
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || exit 5
kernels=./kernels-cuda.test
part driver '' ./internal-cuda.test -test.v
part doctor '' ./pagoda doctor
part conformance '' $kernels -test.v -test.timeout 15m
# The profiler on a small model; with CUPTI kernels, else operations alone. Its traces
# stay in $logs/profiles: TRACES=… make profile-check reads them elsewhere.
profile() {
	rm -rf $logs/profiles
	./pagoda bench profile qwen2.5-0.5b --load-format dummy --quiet --batch-sizes 1,32 --steps 6 \
		--profile-dir $logs/profiles --output-dir $logs/profile-report | tee $logs/profiles.txt || return 1
	mv $logs/profiles.txt $logs/profiles/table.txt
	grep -q 'bound by' $logs/profiles/table.txt && grep -q 'GPU busy' $logs/profiles/table.txt || return 1
	if grep -q 'CUPTI (libcupti' $logs/profiles/table.txt; then
		echo 'CUPTI is not installed here: put libcupti.so.13 beside this script to check it'
	else
		grep -q '^ kernel .*occupancy' $logs/profiles/table.txt
	fi
}
# The engine from end to end: 1,000 compositions and every way to run give the same
# bits, swaps, limits that change live, no memory anywhere, NaNs, a fault.
part engine '' ./engine.test -test.v -test.timeout 15m -test.run GPU
show engine '_test.go:[0-9]+: .*(MiB|GB/s|compositions|allocations|ran )' engine.log
part steady '' ./pagoda bench peers qwen2.5-0.5b qwen2.5-7b --load-format dummy --quiet --rows decode --batch-sizes 1,64,256 \
	--repeats 1 --output-dir $logs/steady-report
show steady 'decode|batch|^ +[0-9]+ ' steady.log
# How idle the GPU is in steady decode, within graphs, too: with CUPTI, which widens gaps.
part idle '' ./engine.test -test.run '^$' -test.bench GPUIdle -test.benchtime 1x
show idle '^Benchmark.*idle' idle.log

# get PATH asks the server of a check.
get() {
	exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
	printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
	cat <&3
	exec 3>&-
}
# load N sends N requests of token ids, 256 at a time.
load() {
	./pagoda bench serve --port "$port" --prompt-token-ids --vocab-size 150000 --max-concurrency 256 --num-prompts "$1" \
		--input-len 256 --random-range-ratio 0.5 --output-len 200 --quiet
}
# 256 streams at once for so many seconds; then no error and no block in use.
serve() {
	port=$((20000 + RANDOM % 20000))
	./pagoda serve qwen2.5-0.5b --load-format dummy --port "$port" >$logs/server.log 2>&1 &
	local server=$! rc=0
	streams "$1" $server || rc=1
	kill $server && wait $server || rc=1
	return $rc
}
streams() { # seconds, process
	local rate busy='kv_blocks[^ ]*state="(used|in_flight)"|num_requests_(running|waiting)\{|finished_reason="(error|abort)"'
	until get /health 2>/dev/null | grep -q '200 OK'; do
		kill -0 "$2" || return 1
		sleep 0.5
	done
	load 768 | tee $logs/load.txt || return 1
	rate=$(awk -F: '/Request throughput/ {print int($2)}' $logs/load.txt)
	# The rate of a short load, which ends with few streams, is too low.
	load $((rate * $1 * 5 / 4 + 256)) | tee $logs/load.txt || return 1
	grep -q 'Failed requests: *0$' $logs/load.txt || return 1
	get /metrics | grep -E "$busy" >$logs/metrics.txt
	cat $logs/metrics.txt
	[ -s $logs/metrics.txt ] && ! grep -qv ' 0$' $logs/metrics.txt
}
if [ $quick ]; then part serve '' serve 10; else part serve '' serve 120; fi
show serve 'Successful|Failed|Benchmark duration|Output token throughput' load.txt
part profile 'the profiler failed|dropped [0-9]+ records' profile
# cases PATH CASE…: the pattern of these cases of the suite. Go's -run cuts a pattern at the
# slashes that are outside of parentheses, so that each case is an alternative from the top.
cases() {
	local path=$1 all= name
	shift
	for name; do all+="|TestConformance/$path/$name"; done
	echo "${all#|}"
}
if [ ! $quick ]; then
	if python3 -c 'import sys; from importlib.util import find_spec as f; sys.exit(not (f("torch") and f("transformers")))' 2>/dev/null; then
		part reference '' reference/make.sh qwen2.5-0.5b
		show reference '^ *\|' reference.log
	fi
	sampling='sampling/(greedy|filter|extremes|logprobs|large|many)'
	CUDA_FORCE_PTX_JIT=1 part ptx '' $kernels -path generic -test.v -test.timeout 15m \
		-test.run "$(cases generic embed rmsnorm qkv/h96 linear/attn/h64 gate_up/h64 head/^tied/h64 attention/h96 "$sampling" rows)"
	if command -v compute-sanitizer >/dev/null; then
		# Graphs, which replay the same kernels, take these tools too long.
		paths=generic
		[ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1)" != 9.0 ] || paths='generic sm_90a'
		for path in $paths; do
			for tool in memcheck synccheck racecheck; do
				part $tool-$path '(ERROR|RACECHECK) SUMMARY: [1-9]|[1-9][0-9]* (errors|warnings)\)' compute-sanitizer --tool $tool \
					$kernels -path $path -test.v -test.timeout 15m -test.run \
					"$(cases $path embed rmsnorm qkv linear gate_up head pool rows 'attention/h(64|96)' 'forward/.*/kept' "$sampling")"
			done
			part initcheck-$path 'ERROR SUMMARY: [1-9]' compute-sanitizer --tool initcheck $kernels -path $path -test.v -test.timeout 15m -test.run "TestGraphs/$path"
		done
	fi
fi
for name in $only; do
	[[ $name == *! ]] || { echo "$name: no such part, or it cannot run here" >&2 && failed=1; }
done
exit $failed
