#!/usr/bin/env bash
# Lint, types and tests.   scripts/test.sh [--all] [arguments for pytest]
# --all runs the tests marked slow too. Every stage runs, whatever the one before said; pytest's summary comes last.

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

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
