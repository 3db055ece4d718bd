"""Does a task hold? The reference fix must resolve it and an empty diff must not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.errors import EnvsError
from contextrl.envs.images import ensure_image
from contextrl.envs.types import Grader, Outcome, Record, Reward, Task

if TYPE_CHECKING:
    from docker import DockerClient


class Validation(Record):
    """What grading said about one task. `problem` is empty when the task holds."""

    task_id: str
    image: str
    gold: Reward | None = None
    empty: Reward | None = None
    image_s: float = 0.0
    """Finding, pulling or building the image."""
    seconds: float = 0.0
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def validate_task(
    task: Task, grader: Grader, *, client: DockerClient, repos: Path | None = None
) -> Validation:
    """Never raises for what is wrong with one task: that is the result."""
    started = time.monotonic()
    image, image_s = task.image, 0.0
    gold = empty = None
    try:
        image = ensure_image(client, task, repos=repos)
        image_s = time.monotonic() - started
        local = task.model_copy(update={"image": image})
        gold = grader.grade(local, task.gold_patch)
        empty = grader.grade(local, "")
        problem = find_problem(gold, empty)
    except EnvsError as error:
        problem = str(error)
    return Validation(
        task_id=task.task_id,
        image=image,
        gold=gold,
        empty=empty,
        image_s=image_s,
        seconds=time.monotonic() - started,
        problem=problem,
    )


def find_problem(gold: Reward, empty: Reward) -> str:
    """Why the two rewards do not make a valid task; empty if they do."""
    if not gold.resolved:
        bad = [f"{test} {o}" for test, o in gold.tests.items() if o is not Outcome.PASSED]
        said = f"; {len(bad)} tests did not pass, first {bad[0]}" if bad else f"; {gold.detail}"
        return f"expected the gold patch to resolve the task, found {gold.verdict}{said}"
    if empty.resolved:
        return "expected the empty patch to leave the task unresolved, found resolved"
    return ""
