#!/bin/sh
# Rewrites testdata/golden from transformers' float32 forward pass. Needs Python 3.11 or newer and
# 8 GB of disk; takes minutes. The results are committed: run it only to change what they cover.
set -eu
cd "$(dirname "$0")/../.."

venv=.cache/venv/goldens

scripts/test-model.sh
scripts/venv.sh goldens scripts/goldens/requirements.txt "torch and transformers (3 GB)"
"$venv/bin/python" scripts/goldens/tiny.py testdata/golden
"$venv/bin/python" scripts/goldens/smollm2.py .cache/models/smollm2-135m testdata/golden/smollm2.json
"$venv/bin/python" scripts/goldens/demo.py model/demo testdata/golden/demo.json
