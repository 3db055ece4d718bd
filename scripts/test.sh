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
    run "$bin/mypy" # of what pyproject.toml names: always this tree's files, never an installed copy
}

ownerless_containers() { # ids, sorted; those of runs that are still alive on this machine left out
    "$bin/python" - <<'PY'
import docker
from contextrl.envs.cleanup import LABEL_PID, LABEL_RUN, owner_alive

try:
    engine = docker.from_env(timeout=10)
    found = engine.api.containers(all=True, filters={"label": LABEL_RUN})
except docker.errors.DockerException:
    found = []  # no engine, no containers
alone = [each["Id"] for each in found if not owner_alive(each["Labels"].get(LABEL_PID, ""))]
print("\n".join(sorted(alone)))
PY
}

tests() {
    local before after left code=0 workers=()
    # Everything: a file to each worker, one more than cores, since many tests wait; four at most, as
    # each may run a dozen sandboxes. With arguments: one process, as a debugger wants it.
    # Threads of several workers on the same cores wait for each other: half of the speed.
    if (($# == 0)); then
        workers=(-n "$(($(nproc) < 4 ? $(nproc) + 1 : 4))" --dist loadfile --no-loadscope-reorder)
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    fi
    before=$(ownerless_containers)
    run "$bin/python" -m pytest --durations=15 "${workers[@]}" "$@" || code=$?
    after=$(ownerless_containers)
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
    bash scripts/setup.sh --docker --test-tools
else
    bash scripts/setup.sh --docker-if-possible --test-tools
fi
if (($# == 0)); then static_checks; fi
tests "$@"
say "passed in $SECONDS s"
