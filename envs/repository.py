"""Scripts that read and make the git state of a task's working directory, for any backend.

They run inside the sandbox: `start_script` before the agent, in a place it has not touched;
`diff_script` after it, where git's configuration may be hostile, which can only spoil its own diff.
"""

from __future__ import annotations

import base64
import shlex

from contextrl.envs.types import Task

JUNK = (
    "__pycache__/",
    "*.pyc",
    "*.pyo",
    ".pytest_cache/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".hypothesis/",
    ".tox/",
    ".nox/",
    ".venv/",
    "*.egg-info/",
    ".coverage",
    ".DS_Store",
    "*.swp",
)
"""Never part of a diff unless the repository tracks it."""

# Plumbing and explicit options only, so that no user configuration changes the format.
DIFF_COMMAND = (
    "git -c core.fsmonitor=false -c core.quotePath=true diff-index --cached --patch --binary "
    "--full-index --no-color --no-ext-diff --no-textconv --no-renames --submodule=short "
    "--src-prefix=a/ --dst-prefix=b/ -U3"
)


def inline_file(target: str, content: bytes) -> str:
    """A shell command that writes `content` to `target`, a bash word, whatever its bytes."""
    encoded = base64.b64encode(content).decode()
    return f"base64 -d > {target} <<'CONTEXTRL_EOF'\n{encoded}\nCONTEXTRL_EOF"


def start_script(task: Task) -> str:
    """Bash that makes the task's start state and prints its commit, last line, or says why not.

    With a setup patch the start state becomes one root commit. Without one history is kept, but
    HEAD must be the base commit, or its child that only an image builder made, and every other
    ref, reflog and remote is dropped, so that nothing newer can be named.
    """
    steps = [
        "set -euo pipefail",
        "fail() { echo \"$*\"; exit 1; }",
        f"cd -- {shlex.quote(task.workdir)} || fail 'no folder {task.workdir}'",
        "head=$(git rev-parse --verify -q HEAD) || fail \"no git commit in $PWD\"",
        # An image may carry changes that its builder never committed.
        "export GIT_AUTHOR_DATE='2000-01-01T00:00:00Z' GIT_COMMITTER_DATE='2000-01-01T00:00:00Z'",
    ]
    if task.setup_patch:
        steps += [
            "patch=$(mktemp)",
            inline_file('"$patch"', task.setup_patch.encode()),
            'git apply --whitespace=nowarn "$patch" || fail "setup_patch does not apply"',
            'rm -f "$patch"',
            "git add -A",
            "start=$(git commit-tree -m 'Initial commit' \"$(git write-tree)\")",
            'git update-ref --no-deref HEAD "$start"',
        ]
    else:
        base = shlex.quote(task.base_commit)
        steps += [
            f"if [ \"$head\" != {base} ] && git cat-file -e {base}'^{{commit}}' 2>/dev/null; then",
            f"  [ \"$(git rev-parse -q --verify HEAD^)\" = \"$(git rev-parse {base})\" ] ||",
            f"    fail \"the image is at $head, expected base_commit {task.base_commit}\"",
            "elif [ \"$head\" != " + base + " ] && git rev-parse -q --verify HEAD^ >/dev/null; then",
            f"  fail \"the image is at $head and does not know base_commit {task.base_commit}\"",
            "fi",
            "git add -A",
            "git diff-index --cached --quiet HEAD || git commit -q --no-verify -m Environment",
        ]
    steps += [
        "branch=$(git symbolic-ref -q HEAD || true)",
        "git for-each-ref --format='%(refname)' | while read -r ref; do",
        '  [ "$ref" = "$branch" ] || echo "delete $ref"',
        "done | git update-ref --stdin",
        "for remote in $(git remote); do git remote remove \"$remote\"; done",
        "rm -rf .git/logs .git/ORIG_HEAD .git/FETCH_HEAD .git/packed-refs.old",
    ]
    if task.setup_patch:
        # The fixed version would else stay readable as an unreferenced object.
        steps.append("git prune --expire=now")
    steps.append("git rev-parse HEAD")
    return "\n".join(steps)


def diff_script(task: Task, start_commit: str, *, all_binary: bool = False) -> str:
    """Bash that prints the diff of the working tree, commits of the agent included.

    It works on a copy of the index: the agent's own staging is left as it is. `all_binary` asks for
    binary hunks throughout, for trees whose text is not UTF-8.
    """
    junk = "\n".join(JUNK)
    attributes = "* -diff" if all_binary else ""
    return "\n".join(
        [
            "set -eu",
            f"cd -- {shlex.quote(task.workdir)}",
            "scratch=$(mktemp -d)",
            "trap 'rm -rf \"$scratch\"' EXIT",
            "cp \"$(git rev-parse --git-path index)\" \"$scratch/index\" 2>/dev/null || :",
            f"printf '%s\\n' {shlex.quote(junk)} > \"$scratch/junk\"",
            f"printf '%s\\n' {shlex.quote(attributes)} > \"$scratch/attributes\"",
            "export GIT_INDEX_FILE=\"$scratch/index\" GIT_CONFIG_GLOBAL=/dev/null",
            "git -c core.excludesFile=\"$scratch/junk\" -c core.fsmonitor=false "
            "-c advice.addEmbeddedRepo=false add -A --ignore-errors . >/dev/null 2>&1 || :",
            f"{DIFF_COMMAND.replace('diff-index', '-c core.attributesFile=$scratch/attributes diff-index')}"
            f" {start_commit} --",
        ]
    )
