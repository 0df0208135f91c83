#!/usr/bin/env bash
# Makes dist/pagoda-<version>-linux-<arch>-cuda.tar.gz for a GPU machine that has
# no Go and no CUDA toolkit: the binary, compiled tests, gpu-check.sh and
# gpu-bench.sh, and the comparison with transformers. `make dist BACKEND=cuda` calls it with the build environment.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=30000000 # bytes

version=$(git describe --always --dirty 2>/dev/null || echo unknown)
name=pagoda-$version-linux-$(uname -m)-cuda
out=dist/$name
rm -rf "$out" "$out.tar.gz"
mkdir -p "$out"
strip='-s -w'
go build -tags 'cuda nodemo' -trimpath -ldflags "$strip -X main.version=$version" -o "$out/" ./cmd/pagoda
for package in internal/cuda kernels/cuda engine; do
	go test -c -tags 'cuda nodemo faults' -trimpath -ldflags "$strip" -o "$out/${package//\//-}.test" "./$package"
done
cp scripts/gpu-check.sh scripts/gpu-bench.sh README.md LICENSE NOTICE "$out/"
cp -r scripts/reference testdata/text/alice.txt "$out/"
cp scripts/venv.sh "$out/reference/"
rm -rf "$out/reference/__pycache__"
mv "$out/alice.txt" "$out/reference/"
mkdir "$out/reference/configs"
for size in 0.5b 1.5b 7b; do
	cp -r model/testdata/qwen2.5-$size-instruct "$out/reference/configs/"
done
tar -C dist -cf - "$name" | gzip -9 >"$out.tar.gz"
rm -rf "$out"
size=$(stat -c %s "$out.tar.gz")
echo "$out.tar.gz: $size bytes"
[ "$size" -le "$limit" ] || { echo "dist: $size bytes, $((size - limit)) more than the $limit allowed" >&2; exit 1; }
