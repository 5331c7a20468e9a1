#!/usr/bin/env bash
# Lint, types and tests.   scripts/test.sh [--all] [arguments for pytest]
# --all runs the tests marked slow too. Every stage runs, whatever the one before said; pytest's summary comes last.

export TESTS_BEGAN="$EPOCHSECONDS"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Sandboxes, a browser and a database server are tried in earnest where there are any: as root on Debian or Ubuntu they are installed.
if [[ $EUID == 0 ]] && command -v apt-get >/dev/null &&
    ! { command -v dockerd && command -v bwrap && command -v chromium && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1; then
    needed=(docker.io bubblewrap chromium postgresql)
    echo "set-up: installing ${needed[*]}, which some tests need ..." >&2
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${needed[@]}"; } \
        >.venv/apt.log 2>&1 || echo "set-up: that failed (.venv/apt.log); their tests will be skipped" >&2
fi

quick="not slow and "
if [[ "${1:-}" == --all ]]; then
    quick=""
    shift
fi
together=(python -m pytest -q -n auto --dist loadgroup -m "${quick}parallel")
select=(-m "${quick}not parallel")
if (($# > 0)); then # whoever names tests wants them in one list
    together=()
    select=(${quick:+-m "not slow"})
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
((${#together[@]} == 0)) || stage "${together[@]}"
((${#failed[@]} == 0)) || printf '== failed before the tests: %s\n' "${failed[@]}"

status=0
python -m pytest "${select[@]}" "$@" || status=$?
((${#failed[@]} == 0)) || status=1
exit "$status"
