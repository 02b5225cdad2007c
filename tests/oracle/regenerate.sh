#!/bin/sh
# Makes the models and every golden again: tests/oracle/regenerate.sh [VENV]
# Creates the virtual environment (default: .venv in the repository) where there is none yet.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$here/../../.venv}
if [ ! -x "$venv/bin/python" ]; then
    python3.11 -m venv "$venv"
    "$venv/bin/pip" install -r "$here/requirements.txt"
fi
"$venv/bin/python" "$here/make_models.py"
"$venv/bin/python" "$here/make_goldens.py"
