#!/bin/sh
# Times Pagoda and llama.cpp in turn on this machine's CPU and prints the ratios.
#
# llama.cpp is built once, from the source archive of the Python package llama-cpp-python
# (pinned and hashed in scripts/requirements-peers.txt), into .cache/peers: 76 MB down, about 10
# minutes of one core. Interrupt it at will: the next run goes on.
#   MODELS   shapes to time (default "qwen2.5-0.5b qwen2.5-1.5b"; also a directory with config.json)
#   REPEATS  rounds, each peer once a round (default 3)
#   PARTS    what to compare (default rates,invariant,neighbour,starts; bench_peers.py says what they are)
#   THREADS  of both peers (default: all processors)
#   PYTHON   interpreter (default python3)
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
mkdir -p .cache/peers
peers=$(cd .cache/peers && pwd -P) # one build serves every checkout that shares the cache
requirements=scripts/requirements-peers.txt
say() { echo "bench-peers: $*" >&2; }
die() { say "$@"; exit 1; }

scripts/need.sh "$python" gcc g++ make
exec 9>"$peers/lock"
flock 9

want=$(sha256sum <"$requirements")
if [ ! -f "$peers/source.stamp" ] || [ "$(cat "$peers/source.stamp")" != "$want" ]; then
	say "fetching llama.cpp (76 MB)"
	rm -rf "$peers/download" "$peers/llama.cpp"
	"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python --require-hashes \
		--requirement "$requirements" --dest "$peers/download" ||
		die "could not fetch the archive: is the Python package index reachable?"
	mkdir "$peers/llama.cpp"
	tar xzf "$peers"/download/llama_cpp_python-*.tar.gz -C "$peers/llama.cpp" --strip-components=3 --wildcards '*/vendor/llama.cpp/*'
	echo "$want" >"$peers/source.stamp"
fi

cmake=cmake
if ! command -v cmake >/dev/null; then
	say "fetching cmake"
	"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$peers/cmake" cmake==4.4.4
	cmake=$peers/cmake/bin/cmake
	PYTHONPATH=$peers/cmake
	export PYTHONPATH
fi
build=$peers/llama.cpp/build
built=1
for name in llama-bench llama-batched-bench llama-quantize llama-simple; do
	[ -x "$build/bin/$name" ] || built=
done
if [ -z "$built" ]; then
	say "building llama.cpp"
	"$cmake" -S "$peers/llama.cpp" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=ON -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF \
		-DLLAMA_OPENSSL=OFF -DGGML_OPENMP=ON >"$peers/build.log" 2>&1 || die "cmake failed: see $peers/build.log"
	nice -n 19 "$cmake" --build "$build" -j "$(nproc)" --target llama-bench llama-batched-bench llama-quantize llama-simple \
		>>"$peers/build.log" 2>&1 || die "the build failed: see $peers/build.log"
fi
flock -u 9

exec "$python" scripts/bench_peers.py --peer "$build/bin" --work "$peers/models" --repeats "${REPEATS:-3}" --parts "${PARTS:-rates,invariant,neighbour,starts}" \
	--threads "${THREADS:-$(nproc)}" ${MODELS:-qwen2.5-0.5b qwen2.5-1.5b}
