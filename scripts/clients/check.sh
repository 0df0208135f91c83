#!/usr/bin/env bash
# A tour of `pagoda serve demo` with the official OpenAI and Anthropic clients (Python).
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.cache/venv/clients
scripts/venv.sh clients scripts/clients/requirements.txt "the OpenAI and Anthropic clients" --no-deps
log=$(mktemp)
bin/pagoda serve demo --port 0 2>"$log" &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -f "$log"' EXIT
until url=$(sed -n 's|^serving \(.*\)/v1$|\1|p' "$log") && [ -n "$url" ]; do
	kill -0 $server 2>/dev/null || { cat "$log" >&2; exit 1; }
	sleep 0.1
done
"$venv/bin/python" scripts/clients/tour.py "$url" demo
