"""A diff -> a `Reward`, in a fresh sandbox that the episode never touched.

The agent's diff is applied to the pristine start state, whatever decides how tests run goes back to
that state, the hidden tests are added, and the tests run under a referee that signs each result
(`evidence`). Failures of the infrastructure are exceptions: a reward always says something about
the diff.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import secrets
import shlex
import threading
import time
from concurrent.futures import Future
from typing import NamedTuple

from contextrl.envs.errors import TaskSetupError
from contextrl.envs.evidence import LogError, TamperedError, TestRun, program, run_tests
from contextrl.envs.protected import paths_to_restore
from contextrl.envs.repository import inline_file
from contextrl.envs.types import (
    ExecResult,
    Grader,
    Outcome,
    Reward,
    Sandbox,
    SandboxProvider,
    Task,
    Verdict,
)

logger = logging.getLogger(__name__)

STEP_TIMEOUT_S = 120.0
"""For applying a patch. Only a sandbox in trouble needs so long."""
NOT_OURS = 97
"""The exit code of a step that failed for no fault of the patch. git itself never ends with it."""
_LIST_CHANGES = (
    "git diff --cached --name-only --no-renames -z HEAD > {0}/changed && "
    "{{ echo; base64 -w0 {0}/changed; }}"
)


class DockerGrader:
    """Grades in sandboxes of `provider`, one per call. As thread-safe as the provider.

    Of `at_once` gradings further ones wait: tests use a processor from start to end, and more of
    them than the machine has processors only take each other's caches. None for no limit, e.g.
    where sandboxes run elsewhere.
    """

    def __init__(self, provider: SandboxProvider, *, at_once: int | None = None) -> None:
        self._provider = provider
        self._slots = contextlib.nullcontext() if at_once is None else threading.Semaphore(at_once)

    def grade(self, task: Task, diff: str) -> Reward:
        with self._slots:
            started = time.monotonic()
            with self._provider.start(task) as sandbox:
                reward = _grade_in(sandbox, task, diff)
            seconds = time.monotonic() - started
        return reward.model_copy(update={"seconds": seconds})


def _grade_in(sandbox: Sandbox, task: Task, diff: str) -> Reward:
    # Outside the repository, and unknown to code that was written before now.
    scratch = f"/tmp/{secrets.token_hex(16)}"
    _run(
        sandbox,
        f"mkdir -m 700 {scratch} && cd -- {shlex.quote(task.workdir)} && {program(scratch)}",
    )
    if diff.strip():
        applied = _apply(sandbox, diff, scratch)
        if isinstance(applied, Rejected):
            return Reward(verdict=Verdict.PATCH_REJECTED, detail=applied.reason)
        _restore_protected(sandbox, task, applied, scratch)
    if task.test_patch:
        applied = _apply(sandbox, task.test_patch, scratch)
        if isinstance(applied, Rejected):
            raise TaskSetupError(
                f"task {task.task_id}: test_patch does not apply: {applied.reason}"
            )

    run = run_tests(sandbox, task, listed_files(task), scratch)
    return verdict_of(run, task)


def verdict_of(run: TestRun, task: Task) -> Reward:
    """What the run proves. Only a log that holds from its first line to its last resolves."""
    seconds = run.result.seconds
    last = (run.result.output.strip().splitlines() or ["no output"])[-1][:300]
    if run.result.timed_out:
        detail = f"the tests ran past {task.test_timeout_s:g} s"
        return Reward(verdict=Verdict.TIMEOUT, test_seconds=seconds, detail=detail)
    try:
        tests = run.outcomes(task)
    except TamperedError as error:
        return Reward(verdict=Verdict.TAMPERED, test_seconds=seconds, detail=str(error))
    except LogError as error:
        detail = f"{error}; it ended with {run.result.exit_code}: {last}"
        return Reward(
            verdict=Verdict.NO_REPORT,
            test_seconds=seconds,
            detail=detail,
            limit=run.result.limit,
        )
    resolved = all(outcome is Outcome.PASSED for outcome in tests.values())
    return Reward(
        verdict=Verdict.RESOLVED if resolved else Verdict.UNRESOLVED,
        tests=tests,
        test_seconds=seconds,
        detail=last,
        limit=None if resolved else run.result.limit,
    )


def listed_files(task: Task) -> tuple[str, ...]:
    """The files that hold the listed tests. Raises `TaskSetupError` if pytest cannot find them."""
    listed = {
        test.partition("::")[0] for test in (*task.fail_to_pass, *task.pass_to_pass) if "::" in test
    }
    # Bare names, as some rows have them, can only be in the files of the test patch.
    files = sorted(listed or {path for path in _patched(task.test_patch) if path.endswith(".py")})
    if not files or any(not path.endswith(".py") or path.startswith("-") for path in files):
        raise TaskSetupError(
            f"task {task.task_id}: expected pytest ids like tests/test_a.py::test_b, "
            f"found {task.fail_to_pass[0]!r}"
        )
    return tuple(files)


class Rejected(NamedTuple):
    """A patch that does not apply."""

    reason: str


def _apply(sandbox: Sandbox, patch: str, scratch: str) -> list[str] | Rejected:
    """The patch is applied to files and index; the paths that differ from HEAD now."""
    text = patch if patch.endswith("\n") else patch + "\n"
    write = inline_file(f"{scratch}/diff", text.encode("utf-8", "surrogateescape"))
    result = sandbox.exec(
        f"if {write}\nthen git apply --index --binary --whitespace=nowarn {scratch}/diff && "
        f"{{ {_LIST_CHANGES.format(scratch)} || (exit {NOT_OURS}); }}\nelse (exit {NOT_OURS}); fi",
        timeout_s=STEP_TIMEOUT_S,
    )
    if result.timed_out:
        return Rejected(f"git apply ran past {STEP_TIMEOUT_S:g} s")
    if result.exit_code == NOT_OURS:
        raise TaskSetupError(f"a patch could not be written: {_words(result)}")
    if result.exit_code != 0:
        return Rejected(_words(result))
    if result.dropped_bytes:
        changed = sandbox.read_file(f"{scratch}/changed")
    else:
        changed = base64.b64decode(result.output.rpartition("\n")[2])
    return changed.decode("utf-8", "surrogateescape").split("\0")


def _restore_protected(sandbox: Sandbox, task: Task, changed: list[str], scratch: str) -> None:
    """What decides how tests run is as in the start state again."""
    restore = paths_to_restore(
        changed,
        allowed=_patched(task.gold_patch),
        always={*listed_files(task), *_patched(task.test_patch)},
    )
    if not restore:
        return
    logger.info("%s: the diff's changes to %s are left out", task.task_id, ", ".join(restore[:5]))
    listed = "\0".join(restore).encode("utf-8", "surrogateescape")
    _run(sandbox, inline_file(f"{scratch}/restore", listed))
    from_file = f"--pathspec-from-file={scratch}/restore --pathspec-file-nul"
    _run(
        sandbox,
        f"git --literal-pathspecs reset -q {from_file} HEAD && "
        # What is tracked again comes back, what is not was added by the diff.
        f"while IFS= read -r -d '' path; do rm -rf -- \"$path\"; done < <(cat {scratch}/restore; "
        "printf '\\0') && git checkout-index --all --force -q",
    )


def _patched(patch: str) -> set[str]:
    """Paths that a trusted patch touches, on either side."""
    paths = set()
    for line in patch.splitlines():
        for prefix in ("--- a/", "+++ b/", "rename from ", "rename to "):
            if line.startswith(prefix):
                paths.add(line[len(prefix) :].split("\t")[0])
    return paths


def _run(sandbox: Sandbox, command: str) -> None:
    result = sandbox.exec(command, timeout_s=STEP_TIMEOUT_S)
    if result.exit_code != 0:
        raise TaskSetupError(
            f"grading step {command[:60]!r} ended with {result.exit_code}: {_words(result)}"
        )


def _words(result: ExecResult) -> str:
    return " ".join(result.output.split())[:300]


class _Key(NamedTuple):
    task_id: str
    task_digest: str
    diff_digest: str


class CachingGrader:
    """Grades each diff of a task once; equal requests at the same time wait for the first.

    Failures of the infrastructure are raised to all that wait and then forgotten, timeouts too:
    a busy machine can cause them.
    """

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._lock = threading.Lock()
        self._rewards: dict[_Key, Future[Reward]] = {}
        self.hits = 0
        self.misses = 0

    def grade(self, task: Task, diff: str) -> Reward:
        key = _Key(task.task_id, _digest(task.model_dump_json()), _digest(diff))
        with self._lock:
            future = self._rewards.get(key)
            mine = future is None
            if future is None:
                future = self._rewards[key] = Future()
            self.hits += not mine
            self.misses += mine
        if mine:
            try:
                reward = self._grader.grade(task, diff)
            except BaseException as error:
                self._forget(key)
                future.set_exception(error)
                raise
            if reward.verdict is Verdict.TIMEOUT:
                self._forget(key)
            future.set_result(reward)
        return future.result()

    def _forget(self, key: _Key) -> None:
        with self._lock:
            self._rewards.pop(key, None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
