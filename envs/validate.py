"""Does a task hold, each time? The reference fix must resolve it and an empty diff must not.

A task that sometimes fails teaches noise, so each patch is graded N times and every test must have
the same outcome each time. What does not hold is quarantined, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.errors import EnvsError, ImageError
from contextrl.envs.images import ensure_image
from contextrl.envs.types import Grader, Outcome, Record, Reward, Task, Verdict

if TYPE_CHECKING:
    from docker import DockerClient


class Quarantine(StrEnum):
    """Why a task may not be used."""

    IMAGE = "image"
    """Its image is absent and could not be pulled or built."""
    INFRASTRUCTURE = "infrastructure"
    """A sandbox failed. Says nothing about the task: validate it again."""
    TIME = "time"
    """Its tests run past its own limit, with the reference fix."""
    GOLD = "gold"
    """The reference fix does not resolve it."""
    EMPTY = "empty"
    """It is resolved without any fix."""
    FLAKY = "flaky"
    """The same patch has different outcomes."""


class Validation(Record):
    """What grading said about one task. `problem` is empty when the task holds."""

    task_id: str
    image: str
    gold: Reward | None = None
    """Of the first time."""
    empty: Reward | None = None
    repeats: int = 1
    """How often each patch was graded."""
    unstable: tuple[str, ...] = ()
    """Tests, or `gold` and `empty` themselves, that did not end the same way each time."""
    image_s: float = 0.0
    """Finding, pulling or building the image."""
    seconds: float = 0.0
    reason: Quarantine | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def validate_task(
    task: Task,
    grader: Grader,
    *,
    client: DockerClient,
    repos: Path | None = None,
    repeats: int = 1,
) -> Validation:
    """Never raises for what is wrong with one task: that is the result.

    `grader` must not cache: repetition is the point.
    """
    started = time.monotonic()
    image, image_s = task.image, 0.0
    golds: list[Reward] = []
    empties: list[Reward] = []
    unstable: tuple[str, ...] = ()
    reason: Quarantine | None = None
    problem = ""
    try:
        image = ensure_image(client, task, repos=repos)
        image_s = time.monotonic() - started
        local = task.model_copy(update={"image": image})
        for number in range(1, repeats + 1):
            golds.append(grader.grade(local, task.gold_patch))
            empties.append(grader.grade(local, ""))
            unstable = find_unstable(golds, empties)
            reason, problem = find_problem(golds[-1], empties[-1])
            if unstable:
                reason = Quarantine.FLAKY
                problem = f"expected the same outcome each time, found {unstable[0]} different"
            if problem:
                if number > 1 and not unstable:
                    problem += f" (time {number})"
                break
    except EnvsError as error:
        image_is_missing = isinstance(error, ImageError)
        reason = Quarantine.IMAGE if image_is_missing else Quarantine.INFRASTRUCTURE
        problem = str(error)
    return Validation(
        task_id=task.task_id,
        image=image,
        gold=golds[0] if golds else None,
        empty=empties[0] if empties else None,
        repeats=len(golds),
        unstable=unstable,
        image_s=image_s,
        seconds=time.monotonic() - started,
        reason=reason,
        problem=problem,
    )


def find_unstable(golds: Sequence[Reward], empties: Sequence[Reward]) -> tuple[str, ...]:
    """What differs between gradings of the same patch."""
    found = []
    for name, rewards in (("gold", golds), ("empty", empties)):
        if len({reward.verdict for reward in rewards}) > 1:
            found.append(name)
        for test in sorted({test for reward in rewards for test in reward.tests}):
            if len({reward.tests.get(test) for reward in rewards if reward.tests}) > 1:
                found.append(f"{test} with the {name} patch")
    return tuple(found)


def find_problem(gold: Reward, empty: Reward) -> tuple[Quarantine | None, str]:
    """Why the two rewards do not make a valid task; empty if they do."""
    if not gold.resolved:
        bad = [f"{test} {o}" for test, o in gold.tests.items() if o is not Outcome.PASSED]
        said = f"; {len(bad)} tests did not pass, first {bad[0]}" if bad else f"; {gold.detail}"
        reason = Quarantine.TIME if gold.verdict is Verdict.TIMEOUT else Quarantine.GOLD
        return (
            reason,
            f"expected the gold patch to resolve the task, found {gold.verdict}{said}",
        )
    if empty.resolved:
        return (
            Quarantine.EMPTY,
            "expected the empty patch to leave the task unresolved, found resolved",
        )
    return None, ""
