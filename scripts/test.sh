#!/usr/bin/env bash
# Runs the tests. Arguments go to pytest, such as tests/test_images.py or -k overlay.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # what tests compute is too small to share
exec "$venv/bin/python" -m pytest "$@"
