"""Tasks that hold each time, and those that are quarantined, with the reason."""

from __future__ import annotations

import pytest

from contextrl.envs import validate
from contextrl.envs.errors import ImageError, SandboxError
from contextrl.envs.types import Outcome, Reward, Verdict
from contextrl.envs.validate import Quarantine, validate_task

GOOD = Reward(verdict=Verdict.RESOLVED, tests={"a": Outcome.PASSED, "b": Outcome.PASSED})
BAD = Reward(verdict=Verdict.UNRESOLVED, tests={"a": Outcome.FAILED, "b": Outcome.PASSED})
OTHER = Reward(verdict=Verdict.UNRESOLVED, tests={"a": Outcome.FAILED, "b": Outcome.FAILED})
SLOW = Reward(verdict=Verdict.TIMEOUT)


class Scripted:
    def __init__(self, gold, empty):
        self.results = {True: list(gold), False: list(empty)}
        self.calls = 0

    def grade(self, task, diff):
        self.calls += 1
        result = self.results[bool(diff)].pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture(autouse=True)
def image_exists(monkeypatch):
    monkeypatch.setattr(validate, "ensure_image", lambda client, task, repos: task.image)


def run(task, gold, empty):
    grader = Scripted(gold, empty)
    return validate_task(task, grader, client=None, repeats=3), grader


def test_a_task_that_holds_each_time_is_ok(tiny_task):
    found, grader = run(tiny_task, [GOOD] * 3, [BAD] * 3)
    assert (found.ok, found.reason, found.repeats, grader.calls) == (True, None, 3, 6)


@pytest.mark.parametrize(
    ("gold", "empty", "reason", "says"),
    [
        ([GOOD, GOOD, BAD], [BAD] * 3, Quarantine.FLAKY, "found gold different"),
        ([GOOD] * 3, [BAD, OTHER], Quarantine.FLAKY, "found b with the empty patch different"),
        ([GOOD] * 3, [BAD, GOOD], Quarantine.FLAKY, "found empty different"),
        ([BAD], [BAD], Quarantine.GOLD, "expected the gold patch to resolve"),
        ([GOOD], [GOOD], Quarantine.EMPTY, "expected the empty patch to leave"),
        ([SLOW], [BAD], Quarantine.TIME, "found timeout"),
        ([SandboxError("engine gone")], [], Quarantine.INFRASTRUCTURE, "engine gone"),
        ([ImageError("no image")], [], Quarantine.IMAGE, "no image"),
    ],
)
def test_what_does_not_hold_is_quarantined_with_the_reason(tiny_task, gold, empty, reason, says):
    found, _ = run(tiny_task, gold, empty)
    assert found.reason is reason
    assert says in found.problem
    assert "\n" not in found.problem
