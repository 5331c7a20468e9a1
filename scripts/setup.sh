# Sourced by the other scripts: makes .venv and installs the package with every extra a CPU needs, once per pyproject.toml.
# Afterwards `python` is that of .venv and the working directory is the root of the repository.
#
# PYTHON=python3.12 chooses the interpreter of a new .venv. pip takes the torch it finds; on a machine without a GPU,
#   export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# saves several GB.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

_fail() {
    echo "set-up: $*" >&2
    exit 1
}

_make_venv() {
    local python="${PYTHON:-python3}"
    command -v "$python" >/dev/null || _fail "$python was not found; name a Python 3.11 or newer with PYTHON=..."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        _fail "$("$python" --version 2>&1) is too old; name a Python 3.11 or newer with PYTHON=..."
    "$python" -m venv .venv ||
        _fail "$python -m venv failed (see above); on Debian and Ubuntu: apt-get install python3-venv"
}

_install() {
    local log=.venv/install.log start=$SECONDS
    echo "set-up: installing into .venv (a few minutes at most, only when pyproject.toml changed) ..." >&2
    # --no-compile: only what is imported is compiled, when it is
    if ! python -m pip install --quiet --no-compile --disable-pip-version-check -e ".[all]" >"$log" 2>&1; then
        grep -E '^ *(ERROR|error)' "$log" | tail -n 5 >&2 || tail -n 5 "$log" >&2
        _fail "pip could not install the package (whole log: $log)"
    fi
    echo "set-up: done in $((SECONDS - start)) s" >&2
}

[[ -x .venv/bin/python ]] || _make_venv
export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"

_wanted="$(python -c 'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')"
if [[ "$(cat .venv/installed 2>/dev/null || true)" != "$_wanted" ]]; then
    _install
    echo "$_wanted" >.venv/installed
fi
