#!/usr/bin/env bash
# need.sh TOOL…: one line that says what to install when a tool is missing.
set -euo pipefail
for tool in "$@"; do
	command -v "$tool" >/dev/null && continue
	case $tool in
	go) how="install Go 1.26 or newer (https://go.dev/dl)" ;;
	gcc) how="install a C compiler (Debian, Ubuntu: apt install gcc g++)" ;;
	cargo) how="install Rust 1.95 or newer (https://rustup.rs)" ;;
	g++) how="install a C++ compiler (Debian, Ubuntu: apt install g++)" ;;
	python3) how="install Python 3.10 or newer (Debian, Ubuntu: apt install python3 python3-venv)" ;;
	*) how="install it" ;;
	esac
	echo "$tool not found: $how" >&2
	exit 1
done
