#!/usr/bin/env bash
# Makes a cohort, learns what healthy looks like, scores and evaluates; all on embedded data. Arguments go to
# `priorlens demo`, such as --out DIR.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$venv/bin/priorlens" demo "$@"
