"""What became of an episode, in one word: the rows of a failure table."""

from __future__ import annotations

from enum import StrEnum

from contextrl.agents.types import StopReason
from contextrl.envs.types import Verdict


class Failure(StrEnum):
    """One class per episode, the first that holds. `RESOLVED` is the only success."""

    RESOLVED = "resolved"
    INFRASTRUCTURE = "infrastructure"
    """Excluded: a sandbox, a server or the grading failed."""
    UNGRADED = "ungraded"
    PATCH_REJECTED = "patch rejected"
    TEST_TIMEOUT = "tests timed out"
    NO_REPORT = "no test report"
    TAMPERED = "tampered with"
    """Something other than the tests had a hand in their results."""
    NO_CHANGE = "no change made"
    FORMAT = "format errors"
    OUT_OF_BUDGET = "out of budget"
    """Of turns, tokens, context or time; what it had changed so far does not pass."""
    WRONG_FIX = "wrong fix"
    """Submitted a change, and a listed test does not pass."""
    UNREADABLE = "unreadable"
    """The line of the file is no trajectory."""


_BY_VERDICT = {
    Verdict.RESOLVED: Failure.RESOLVED,
    Verdict.PATCH_REJECTED: Failure.PATCH_REJECTED,
    Verdict.TIMEOUT: Failure.TEST_TIMEOUT,
    Verdict.NO_REPORT: Failure.NO_REPORT,
    Verdict.TAMPERED: Failure.TAMPERED,
}


def classify(
    *, stop_reason: str, verdict: str | None, graded_in_vain: bool, has_change: bool
) -> Failure:
    """By plain strings, so that an index need not build a `Trajectory` for it."""
    try:
        reason = StopReason(stop_reason)
        judged = None if verdict is None else Verdict(verdict)
    except ValueError:
        return Failure.UNREADABLE
    if reason.excluded or graded_in_vain:
        return Failure.INFRASTRUCTURE
    if judged is None:
        return Failure.UNGRADED
    if judged in _BY_VERDICT:
        return _BY_VERDICT[judged]
    if not has_change:
        return Failure.FORMAT if reason is StopReason.MAX_FORMAT_ERRORS else Failure.NO_CHANGE
    if reason is StopReason.MAX_FORMAT_ERRORS:
        return Failure.FORMAT
    return Failure.WRONG_FIX if reason is StopReason.SUBMITTED else Failure.OUT_OF_BUDGET
