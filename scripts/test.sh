#!/usr/bin/env bash
# Runs the tests, on up to four cores. Arguments go to pytest, such as tests/test_images.py, -k overlay, or -n 0 for one.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # what tests compute is too small to share
exec "$venv/bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
