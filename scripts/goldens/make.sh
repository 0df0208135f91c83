#!/bin/sh
# Rewrites testdata/golden from transformers' float32 forward pass. Needs Python 3.11 or newer and
# 8 GB of disk; takes minutes. The results are committed: run it only to change what they cover.
set -eu
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
venv=.cache/venv/goldens
requirements=scripts/goldens/requirements.txt

scripts/test-model.sh
want=$(sha256sum <"$requirements")
if [ ! -f "$venv/.stamp" ] || [ "$(cat "$venv/.stamp")" != "$want" ]; then
	echo "goldens: fetching torch and transformers (3 GB)" >&2
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement "$requirements"
	echo "$want" >"$venv/.stamp"
fi
"$venv/bin/python" scripts/goldens/tiny.py testdata/golden
"$venv/bin/python" scripts/goldens/smollm2.py .cache/models/smollm2-135m testdata/golden/smollm2.json
"$venv/bin/python" scripts/goldens/demo.py model/demo testdata/golden/demo.json
