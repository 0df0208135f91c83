#!/bin/sh
# Builds .cache/lib/libtokenizers.a, the Rust library that model/tokenizer links:
# third_party/tokenizers-ffi around the Rust source inside the Go module
# github.com/daulet/tokenizers of go.mod. Does nothing when it is up to date.
set -eu
cd "$(dirname "$0")/.."

crate=third_party/tokenizers-ffi
source=.cache/tokenizers/lib.rs
library=.cache/lib/libtokenizers.a
stamp=.cache/lib/libtokenizers.version

scripts/need.sh go
module=github.com/daulet/tokenizers
version=$(sed -n "s|^.*$module \(v[^ ]*\).*$|\1|p" go.mod)

if [ -f "$library" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ] &&
	[ -z "$(find "$crate" scripts/build-tokenizers.sh -newer "$library" -type f)" ]; then
	exit 0
fi

scripts/need.sh cargo gcc g++

dir=$(go mod download -json "$module@$version" | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
mkdir -p .cache/tokenizers .cache/lib
install -m 644 "$dir/crates/tokenizers/src/lib.rs" "$source"
cargo build --release --locked --manifest-path "$crate/Cargo.toml" --target-dir .cache/cargo
install -m 644 .cache/cargo/release/libtokenizers.a "$library.new"
mv "$library.new" "$library"
echo "$version" >"$stamp"
