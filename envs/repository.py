"""Scripts that read and make the git state of a task's working directory, for any backend.

They run inside the sandbox: `start_script` before the agent, in a place it has not touched;
`read_diff` after it, where git's configuration may be hostile, which can only spoil its own diff.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import shlex
from collections.abc import Callable

from contextrl.envs.history import FORGET_NAMES, REMOVE_AND_PROVE
from contextrl.envs.types import Task

logger = logging.getLogger(__name__)

RunScript = Callable[[str], tuple[int, bytes, bytes]]
"""Runs bash; exit code, stdout and stderr."""

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

MAX_PRINTED_BYTES = 64 * 1024
NEWLINE = "\n"

# Plumbing and explicit options only, so that no user configuration changes the format.
DIFF = (
    "diff-index --cached --patch --binary --full-index --no-color --no-ext-diff --no-textconv "
    "--no-renames --submodule=short --src-prefix=a/ --dst-prefix=b/ -U3"
)


def inline_file(target: str, content: bytes) -> str:
    """A shell command that writes `content` to `target`, a bash word, whatever its bytes.

    Text of usual length is written by the shell itself: starting a process costs more.
    """
    if len(content) <= MAX_PRINTED_BYTES and b"\0" not in content:
        with contextlib.suppress(UnicodeDecodeError):
            return f"builtin printf %s {shlex.quote(content.decode())} > {target}"
    encoded = base64.b64encode(content).decode()
    return f"base64 -d > {target} <<'CONTEXTRL_EOF'\n{encoded}\nCONTEXTRL_EOF"


def start_script(task: Task) -> str:
    """Bash that makes the task's start state and prints its commit, last line, or says why not.

    With a setup patch the start state becomes one root commit. Without one history is kept, but
    HEAD must be the base commit, or its child that only an image builder made. Either way
    everything newer is taken out, and the script fails unless it can prove that (`history`).

    Starting a process costs more than what these do, so files of `.git` are written directly.
    """
    make_start = _inject(task.setup_patch) if task.setup_patch else _KEEP_HISTORY
    return f"""
set -euo pipefail
fail() {{ echo "$*"; exit 1; }}
# Fixed, so that the same start state has the same commit in every run.
export GIT_AUTHOR_DATE=@946684800 GIT_COMMITTER_DATE=@946684800
base={shlex.quote(task.base_commit)}
cd -- {shlex.quote(task.workdir)} || fail 'no such folder in the image'
[ -d .git ] || fail "no git repository in $PWD"
{make_start}
{REMOVE_AND_PROVE}
echo
echo "$(<.git/refs/heads/main)"
"""


def refresh(task: Task) -> str:
    """Bash, for a start state that was copied: its files have other inodes, and git would take each
    for changed until it read it again."""
    return f"cd -- {shlex.quote(task.workdir)} && git update-index -q --refresh\n"


_COMMIT = "git -c gc.auto=0 -c maintenance.auto=false commit -q --no-verify --allow-empty -m"


def _inject(patch: str) -> str:
    """The patched tree becomes the only commit; the unpatched source is not needed by it."""
    return f"""
git apply --whitespace=nowarn - <<<{shlex.quote(patch.removesuffix(NEWLINE))} ||
  fail 'setup_patch does not apply'
{FORGET_NAMES}
git add -A
{_COMMIT} 'Initial commit'
"""


# An image may carry changes that its builder never committed; they belong to the start state.
_KEEP_HISTORY = f"""
head=$(git rev-parse --verify -q HEAD) || fail "no commit in $PWD"
if [ "$head" != "$base" ] && parent=$(git rev-parse -q --verify HEAD^); then
  [ "$parent" = "$base" ] || fail "the image is at commit $head, expected $base"
fi
{FORGET_NAMES}
echo "$head" > .git/refs/heads/main
git add -A
git diff-index --cached --quiet HEAD || {_COMMIT} 'Environment'
"""


def read_diff(run: RunScript, task: Task, start_commit: str) -> str:
    """The diff of the working tree against the start commit, commits of the agent included.

    Empty, with a warning in the log, if the agent made the repository unreadable. Where the text is
    not UTF-8 all changes are binary hunks.
    """
    for all_binary in (False, True):
        code, stdout, stderr = run(_diff_script(task, start_commit, all_binary=all_binary))
        if code != 0:
            reason = " ".join(stderr.decode(errors="replace").split())[:200]
            logger.warning("%s: no diff, the repository is broken: %s", task.task_id, reason)
            return ""
        try:
            return stdout.decode()
        except UnicodeDecodeError:
            continue
    return stdout.decode(errors="replace")


def _diff_script(task: Task, start_commit: str, *, all_binary: bool) -> str:
    """Works on a copy of the index, so that the agent's own staging is left as it is."""
    junk = "\n".join(JUNK)
    attributes = "* -diff" if all_binary else ""
    return f"""
set -eu
cd -- {shlex.quote(task.workdir)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# With its time: git compares it with those of the files to know which entries to trust.
cp -p "$(git rev-parse --git-path index)" "$scratch/index" 2>/dev/null || :
printf '%s\\n' {shlex.quote(junk)} > "$scratch/junk"
printf '%s\\n' {shlex.quote(attributes)} > "$scratch/attributes"
export GIT_INDEX_FILE="$scratch/index" GIT_CONFIG_GLOBAL=/dev/null
settings=(-c core.excludesFile="$scratch/junk" -c core.attributesFile="$scratch/attributes"
          -c core.fsmonitor=false -c core.quotePath=true -c advice.addEmbeddedRepo=false)
git "${{settings[@]}}" add -A --ignore-errors . >/dev/null 2>&1 || :
git "${{settings[@]}}" {DIFF} {start_commit} --
"""
