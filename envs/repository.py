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
    HEAD must be the base commit, or its child that only an image builder made. Either way every
    other ref, reflog, remote and worktree is dropped, so that nothing newer can be named.

    Starting a process costs more than what these do, so files of `.git` are written directly.
    """
    make_start = _INJECT if task.setup_patch else _KEEP_HISTORY
    return "\n".join(
        [
            "set -euo pipefail",
            'fail() { echo "$*"; exit 1; }',
            # Fixed, so that the same start state has the same commit in every run.
            "export GIT_AUTHOR_DATE='2000-01-01T00:00:00Z' GIT_COMMITTER_DATE='2000-01-01T00:00:00Z'",
            f"base={shlex.quote(task.base_commit)}",
            f"cd -- {shlex.quote(task.workdir)} || fail 'no such folder in the image'",
            '[ -d .git ] || fail "no git repository in $PWD"',
            make_start.replace("PATCH", base64.b64encode(task.setup_patch.encode()).decode()),
            "if [[ $(<.git/config) == *'[remote '* ]]; then",
            '  for remote in $(git remote); do git remote remove "$remote"; done',
            "fi",
            _PRUNE if task.setup_patch else "",
            "echo; cat .git/refs/heads/main",
        ]
    )


_FORGET_REFS = """
rm -rf .git/refs .git/packed-refs .git/logs .git/worktrees .git/ORIG_HEAD .git/FETCH_HEAD
mkdir -p .git/refs/heads .git/refs/tags
echo 'ref: refs/heads/main' > .git/HEAD
"""

_COMMIT = "git -c gc.auto=0 -c maintenance.auto=false commit -q --no-verify --allow-empty -m"

_INJECT = f"""
base64 -d <<<PATCH | git apply --whitespace=nowarn || fail 'setup_patch does not apply'
{_FORGET_REFS}
git add -A
{_COMMIT} 'Initial commit'
"""

# An image may carry changes that its builder never committed; they belong to the start state.
_KEEP_HISTORY = f"""
head=$(git rev-parse --verify -q HEAD) || fail "no commit in $PWD"
if [ "$head" != "$base" ] && parent=$(git rev-parse -q --verify HEAD^); then
  [ "$parent" = "$base" ] || fail "the image is at commit $head, expected $base"
fi
{_FORGET_REFS}
echo "$head" > .git/refs/heads/main
git add -A
git diff-index --cached --quiet HEAD || {_COMMIT} 'Environment'
"""

# Without this the fixed source would stay readable as objects that no commit needs.
_PRUNE = "git prune --expire=now"


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
            'cp "$(git rev-parse --git-path index)" "$scratch/index" 2>/dev/null || :',
            f"printf '%s\\n' {shlex.quote(junk)} > \"$scratch/junk\"",
            f"printf '%s\\n' {shlex.quote(attributes)} > \"$scratch/attributes\"",
            'export GIT_INDEX_FILE="$scratch/index" GIT_CONFIG_GLOBAL=/dev/null',
            'git -c core.excludesFile="$scratch/junk" -c core.fsmonitor=false '
            "-c advice.addEmbeddedRepo=false add -A --ignore-errors . >/dev/null 2>&1 || :",
            f"{DIFF_COMMAND.replace('diff-index', '-c core.attributesFile=$scratch/attributes diff-index')}"
            f" {start_commit} --",
        ]
    )
