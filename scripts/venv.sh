#!/bin/sh
# Makes the virtual environment .cache/venv/NAME of the current directory with the packages of
# REQUIREMENTS, unless it has them: scripts/venv.sh NAME REQUIREMENTS WHAT [PIP_ARGUMENT…]
#   WHAT    what is fetched, to be said
#   PYTHON  interpreter (default python3)
set -eu
name=$1 requirements=$2 what=$3
shift 3
venv=.cache/venv/$name
want=$(sha256sum <"$requirements")
if [ -f "$venv/.stamp" ] && [ "$(cat "$venv/.stamp")" = "$want" ]; then
	exit 0
fi
echo "$name: fetching $what" >&2
rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement "$requirements" "$@"
echo "$want" >"$venv/.stamp"
