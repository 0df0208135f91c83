#!/bin/sh
# Runs reference.py with its arguments. An interpreter ($PYTHON, default python3) that has torch and
# transformers is used as it is; otherwise a virtual environment gets the versions of requirements.txt (3 GB).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
venv=$root/scripts/venv.sh
[ -f "$root/Makefile" ] || root=$here venv=$here/venv.sh # in an archive

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; from importlib.util import find_spec as f; sys.exit(not (f("torch") and f("transformers")))' 2>/dev/null; then
	(cd "$root" && "$venv" reference "$here/requirements.txt" "torch and transformers (3 GB)")
	python=$root/.cache/venv/reference/bin/python
fi
exec "$python" "$here/reference.py" "$@"
