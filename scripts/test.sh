#!/usr/bin/env bash
# Lint, types and tests.   scripts/test.sh [--all] [arguments for pytest]
# --all runs the tests marked slow too. Every stage runs, whatever the one before said; pytest's summary comes last.

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Sandboxes are attacked in earnest where there are any: as root on Debian or Ubuntu, what they need is installed.
if [[ $EUID == 0 ]] && command -v apt-get >/dev/null && ! { command -v dockerd && command -v bwrap; } >/dev/null; then
    echo "set-up: installing docker.io and bubblewrap, which the tests of sandboxes need ..." >&2
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends docker.io bubblewrap; } \
        >.venv/apt.log 2>&1 || echo "set-up: that failed (.venv/apt.log); their tests will be skipped" >&2
fi

select=(-m "not slow")
if [[ "${1:-}" == --all ]]; then
    select=()
    shift
fi

failed=()
stage() {
    local start=$SECONDS verdict=passed
    "$@" || {
        verdict=FAILED
        failed+=("$*")
    }
    echo "== $*: $verdict ($((SECONDS - start)) s)"
}

stage ruff check .
stage ruff format --check .
stage mypy
((${#failed[@]} == 0)) || printf '== failed before the tests: %s\n' "${failed[@]}"

status=0
python -m pytest "${select[@]}" "$@" || status=$?
((${#failed[@]} == 0)) || status=1
exit "$status"
