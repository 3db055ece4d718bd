#!/usr/bin/env bash
# The whole check of this repository: set-up, formatting, lint, types, tests.
#
#   bash scripts/test.sh                 everything
#   bash scripts/test.sh -k ca_loss -x   only pytest, with these arguments
#   bash scripts/test.sh --static        only formatting, lint and types
#
# CONTEXTRL_REQUIRE_DOCKER=1: tests that need a Docker engine fail without one instead of skipping.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin

say() { printf 'test: %s\n' "$*" >&2; }

run() {
    local started=$SECONDS
    say "$*"
    "$@" || {
        local code=$?
        say "failed with exit code $code after $((SECONDS - started)) s: $*"
        return "$code"
    }
}

static_checks() {
    run "$bin/ruff" format --check .
    run "$bin/ruff" check .
    # mypy_path puts .typing before the installed packages, so these are always this tree's files.
    run "$bin/mypy" -p contextrl.envs -p contextrl.agents -p contextrl.pairs
}

our_containers() { # ids, sorted; nothing without an engine
    "$bin/python" - <<'PY'
import docker

try:
    engine = docker.from_env(timeout=10)
    found = engine.containers.list(all=True, filters={"label": "contextrl.run"})
    print("\n".join(sorted(container.id for container in found)))
except docker.errors.DockerException:
    pass
PY
}

tests() {
    local before after left code=0
    before=$(our_containers)
    run "$bin/python" -m pytest --durations=15 "$@" || code=$?
    after=$(our_containers)
    left=$(comm -13 <(echo "$before") <(echo "$after") | sed '/^$/d')
    if [[ -n $left ]]; then
        say "expected no container of ours to outlive the tests, found: $(xargs <<<"$left")"
        say "to remove them: $bin/contextrl clean"
        ((code)) || code=1
    fi
    return "$code"
}

if [[ ${1:-} == --static ]]; then
    bash scripts/setup.sh
    static_checks
    exit
fi
if [[ ${CONTEXTRL_REQUIRE_DOCKER:-0} == 1 ]]; then
    bash scripts/setup.sh --docker
else
    bash scripts/setup.sh --docker-if-possible
fi
if (($# == 0)); then static_checks; fi
tests "$@"
say "passed in $SECONDS s"
