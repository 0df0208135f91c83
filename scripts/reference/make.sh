#!/bin/sh
# Runs reference.py with its arguments. An interpreter ($PYTHON, default python3) that has torch and
# transformers is used as it is; otherwise a virtual environment gets the versions of requirements.txt (3 GB).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
[ -f "$root/Makefile" ] || root=$here # in an archive

python=${PYTHON:-python3}
requirements=$here/requirements.txt
if ! "$python" -c 'import sys; from importlib.util import find_spec as f; sys.exit(not (f("torch") and f("transformers")))' 2>/dev/null; then
	venv=$root/.cache/venv/reference
	want=$(sha256sum <"$requirements")
	if [ ! -f "$venv/.stamp" ] || [ "$(cat "$venv/.stamp")" != "$want" ]; then
		echo "reference: fetching torch and transformers (3 GB)" >&2
		rm -rf "$venv"
		"$python" -m venv "$venv"
		"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement "$requirements"
		echo "$want" >"$venv/.stamp"
	fi
	python=$venv/bin/python
fi
exec "$python" "$here/reference.py" "$@"
