"""How an episode ended, one kind each: what a run's failures are counted by.

Kinds that say nothing about the policy are excluded from its group and from every mean; the others
are scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from contextrl.agents.types import StopReason, Trajectory
from contextrl.envs.types import Limit, Verdict


class Ending(StrEnum):
    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    TIME = "time"
    """Not resolved: the episode's time, or that of its tests, ran out."""
    MEMORY = "memory"
    """Not resolved: the tests, or the last command, met the sandbox's memory limit."""
    UNGRADED = "ungraded"
    """Nobody was to grade it."""
    FLAKY = "flaky"
    """The same diff of the same task was judged differently elsewhere in the run."""
    IMAGE = "image"
    """Excluded: the task's image could not be had."""
    TASK = "task"
    """Excluded: its start state could not be made, or its first prompt was too long."""
    POLICY = "policy"
    """Excluded: the inference server failed."""
    INFRASTRUCTURE = "infrastructure"
    """Excluded: a sandbox failed, while the episode ran or while it was graded."""


_BY_ERROR = {
    "ImageError": Ending.IMAGE,
    "TaskSetupError": Ending.TASK,
    "PromptTooLongError": Ending.TASK,
}


def ending_of(trajectory: Trajectory) -> Ending:
    """By this episode alone, so never `FLAKY`."""
    reward = trajectory.reward
    if trajectory.excluded:
        if trajectory.stop_reason is StopReason.POLICY_ERROR:
            return Ending.POLICY
        reason = trajectory.grading_error or trajectory.stop_detail
        return _BY_ERROR.get(reason.partition(":")[0], Ending.INFRASTRUCTURE)
    if reward is None:
        return Ending.UNGRADED
    if reward.resolved:
        return Ending.RESOLVED
    if reward.verdict is Verdict.TIMEOUT or trajectory.stop_reason is StopReason.WALL_CLOCK:
        return Ending.TIME
    last = trajectory.steps[-1].limit if trajectory.steps else None
    if Limit.MEMORY in {reward.limit, last}:
        return Ending.MEMORY
    return Ending.UNRESOLVED


def count_endings(trajectories: Iterable[tuple[str, str, Ending]]) -> dict[str, int]:
    """How many ended in each way, the most frequent first. Items: task id, submission, ending."""
    judged: dict[tuple[str, str], Counter[Ending]] = {}
    for task_id, submission, ending in trajectories:
        judged.setdefault((task_id, submission), Counter())[ending] += 1
    total: Counter[str] = Counter()
    for endings in judged.values():
        graded = {Ending.RESOLVED, Ending.UNRESOLVED} & set(endings)
        for ending, count in endings.items():
            total[Ending.FLAKY if len(graded) == 2 and ending in graded else ending] += count
    return {str(ending): count for ending, count in total.most_common()}
