"""What a run of the tests proves: pytest under `referee.py`, and its signed log read on our side.

The log is hostile input until each line's seal is checked with a key that only this run had. Lines
count up from 0 and the last one says how the run ended, so nothing can be added, left out or taken
from another run. Canaries are listed tests that ran a second time with a body that fails: where a
canary passed, or did not run, nobody ran the test either.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import random
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from contextrl.envs.outcomes import Case, outcomes
from contextrl.envs.repository import inline_file
from contextrl.envs.types import ExecResult, Outcome, Sandbox, Task, TaskSource

PROGRAM = ("referee.py", "referee_hooks.py", "referee_source.py")
MAX_CANARIES = 2
PRINT_TIMEOUT_S = 10.0
OPTIONS = ("-q", "--tb=no", "-p", "no:cacheprovider")
"""Nobody reads tracebacks of grading, and writing them costs as much as the tests."""
PLAIN_ASSERTS = "--assert=plain"
"""Nor what rewritten asserts would say. Rewriting a test module takes longer than running it."""


class LogError(ValueError):
    """The log does not show a run that ended by itself."""


class TamperedError(ValueError):
    """The log shows that somebody else had a hand in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """A test process that ended, or ran out of time, and what it left."""

    result: ExecResult
    log: bytes | None
    key: bytes
    canaries: tuple[str, ...]
    """Test ids that must have run with a body that fails."""

    def outcomes(self, task: Task) -> dict[str, Outcome]:
        """Of every listed test. Raises `LogError` and `TamperedError`."""
        if self.log is None:
            raise LogError("no log")
        cases, canaries = read_log(self.log, self.key)
        check_canaries(cases, canaries, self.canaries)
        return outcomes(cases, (*task.fail_to_pass, *task.pass_to_pass))


def program(scratch: str) -> str:
    """A shell command that writes what runs the tests into the folder `scratch`."""
    return " &&\n".join(inline_file(f"{scratch}/{name}", _source(name)) for name in PROGRAM)


def run_tests(sandbox: Sandbox, task: Task, files: Sequence[str], scratch: str) -> TestRun:
    """The tests of `files` ran. `scratch` holds the `program`, and is outside the workdir.

    Whole files: one id that does not exist would make pytest run nothing at all.
    """
    key = secrets.token_bytes(32)
    chosen = random.SystemRandom().sample(
        task.fail_to_pass, min(MAX_CANARIES, len(task.fail_to_pass))
    )
    # Our own images hold only what the package needs; other repositories count on their plugins.
    own = task.source is TaskSource.MUTATION
    plan = {
        "key": key.hex(),
        "options": [*OPTIONS, PLAIN_ASSERTS] if own else OPTIONS,
        "files": list(files),
        "canaries": chosen,
        "plugins": not own,
    }
    autoload = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 " if own else ""
    workdir = shlex.quote(task.workdir)
    result = sandbox.exec(
        f"cd -- {workdir} && {autoload}$(command -v python || command -v python3) "
        f"{scratch}/referee.py {scratch}/log {workdir}",
        timeout_s=task.test_timeout_s,
        stdin=json.dumps(plan).encode(),  # not in the shell's memory, which a test could read
    )
    log = None if result.timed_out else _log_of(sandbox, f"{scratch}/log", key)
    return TestRun(result=result, log=log, key=key, canaries=tuple(chosen))


def _log_of(sandbox: Sandbox, path: str, key: bytes) -> bytes | None:
    """Through the shell, which is cheap, where the seals say that it is whole; else by itself.

    What ran may have its hands in the shell: then the seals do not hold, or nothing answers.
    """
    printed = sandbox.exec(f"cat -- {path}", timeout_s=PRINT_TIMEOUT_S)
    if printed.exit_code == 0 and not printed.dropped_bytes:
        log = printed.output.encode("utf-8", "surrogateescape")
        with contextlib.suppress(LogError, TamperedError):
            read_log(log, key)
            return log
    # Removed, replaced or blown up by what ran: the same as no log.
    with contextlib.suppress(FileNotFoundError, ValueError):
        return sandbox.read_file(path)
    return None


def read_log(content: bytes, key: bytes) -> tuple[list[Case], list[Case]]:
    """The tests' outcomes phase by phase, and the canaries'. Raises `LogError`, `TamperedError`."""
    cases: list[Case] = []
    canaries: list[Case] = []
    ended = False
    for number, line in enumerate(content.splitlines()):
        seal, _, sealed = line.partition(b" ")
        expected = hashlib.blake2b(sealed, key=key, digest_size=16).hexdigest().encode()
        if not hmac.compare_digest(seal, expected):
            raise TamperedError(f"line {number} of the results was not written by the test runner")
        count, _, text = sealed.partition(b" ")
        if ended or int(count) != number:
            raise TamperedError(f"line {number} of the results is out of place")
        kind, *fields = json.loads(text)
        if kind == "altered":
            raise TamperedError(fields[0])
        if kind == "test":
            nodeid, when, outcome = fields
            if (found := _outcome(when, outcome)) is not None:
                cases.append(Case(node_id=nodeid, outcome=found))
        elif kind == "canary":
            passed = Outcome.PASSED if fields[1] == "passed" else Outcome.FAILED
            canaries.append(Case(node_id=fields[0], outcome=passed))
            if passed is Outcome.PASSED:
                raise TamperedError(f"{fields[0]} passes even with a body that fails")
        ended = kind == "end"
    if not ended:
        raise LogError("the test process ended before the tests did")
    return cases, canaries


def check_canaries(cases: Sequence[Case], canaries: Sequence[Case], wanted: Sequence[str]) -> None:
    """Raises `TamperedError` where a test passed whose canary is absent."""
    ran = outcomes(canaries, wanted)
    for test, outcome in outcomes(cases, wanted).items():
        if outcome is Outcome.PASSED and ran[test] is not Outcome.FAILED:
            raise TamperedError(f"{test} passed, but it did not run with a body that fails")


def _outcome(when: str, outcome: str) -> Outcome | None:
    """None for what says nothing: a set-up that went well, or a failure that is tried again."""
    if outcome == "failed":
        return Outcome.FAILED if when == "call" else Outcome.ERROR
    if outcome == "skipped":
        return Outcome.SKIPPED
    return Outcome.PASSED if when == "call" and outcome == "passed" else None


@cache
def _source(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
