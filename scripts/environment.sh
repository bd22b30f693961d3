# Makes the virtual environment that scripts/demo.sh and scripts/test.sh run in. It is sourced, not run.
#
#   PRIORLENS_VENV   where the environment is (default: .venv in the checkout)
#   PYTHON           the interpreter to make it with (default: python3, or another on the path that is 3.11 or newer)
#
# A later run finds everything in place and is quick; a changed pyproject.toml or constraints.txt is installed again.

set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${PRIORLENS_VENV:-$checkout/.venv}

find_python() {
    local name names=(python3 python3.13 python3.12 python3.11 python3.14 python)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$name"
            return
        fi
    done
    echo "priorlens: found no Python 3.11 or newer (tried ${names[*]}); install one, or name it: PYTHON=/path/to/python3" >&2
    return 3
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making a virtual environment in $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
        echo "priorlens: $python cannot make virtual environments; install its venv module (Debian, Ubuntu: python3-venv)" >&2
        exit 3
    fi
fi

installed=$venv/.priorlens-installed
wanted=$(cat "$checkout/pyproject.toml" "$checkout/constraints.txt" && printf '%s' "$checkout")
if [ ! -f "$installed" ] || [ "$(cat "$installed")" != "$wanted" ]; then
    echo "Installing priorlens and what it needs (PyTorch is large: the first time takes some minutes)"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet \
        --constraint "$checkout/constraints.txt" --editable "$checkout[test]"
    printf '%s' "$wanted" >"$installed"
fi

# Threads that wait for each other by spinning are ten times slower where another program wants the same cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
