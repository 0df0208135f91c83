#!/bin/sh
# Reads the traces of `pagoda bench profile` with TensorBoard's torch-tb-profiler and compares what
# it finds with what was printed: the demo model on this machine's processor, and a made-up profile
# of a GPU. Half a minute after the first time, which fetches 60 MB of Python packages.
#   PYTHON       interpreter (default python3; 3.11 or newer)
#   SCREENSHOTS  directory for pictures of the plugin's pages (needs chromium and npm; default: none)
#   TRACES       directory of `pagoda bench profile` to read as well, such as one from a GPU machine:
#                what it printed lies there as table.txt
set -eu
cd "$(dirname "$0")/.."

venv=.cache/venv/profile-check

scripts/need.sh go "${PYTHON:-python3}"
scripts/venv.sh profile-check scripts/requirements-profile-check.txt TensorBoard setuptools==65.5.0
if [ -n "${SCREENSHOTS:-}" ] && [ ! -d "$venv/polyfill" ]; then
	scripts/need.sh npm chromium
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check playwright==1.63.0
	mkdir "$venv/polyfill"
	(cd "$venv/polyfill" && tar xzf "$(npm pack --silent webcomponents.js@0.7.24)" --strip-components=1)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin/pagoda bench profile demo --quiet --profile-dir "$work/cpu" --output-dir "$work/report" >"$work/table.txt"
mv "$work/table.txt" "$work/cpu/table.txt"
mkdir "$work/gpu"
go test ./bench -count=1 -run 'TestProfileOfGPU$' -profile-out "$work/gpu" >/dev/null
if [ -n "${TRACES:-}" ]; then
	cp -r "$TRACES" "$work/given"
fi
"$venv/bin/python" scripts/profile_check.py "$work" ${SCREENSHOTS:+--screenshots "$SCREENSHOTS" --polyfill "$venv/polyfill/webcomponents.min.js"}
