"""Which tasks the next step plays: every task once, then those whose outcome is open.

GRPO learns nothing from a group whose episodes all failed or all succeeded (their advantages are
zero), and in a small run most groups are such. After one pass over the set a task is drawn with a
weight that grows with the variance of its last group's outcomes, p(1 - p), estimated with a little
doubt, so that hopeless and finished tasks still come back now and then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DOUBT = 0.25
"""Successes, and failures, added to each group's: 8 failures of 8 weigh a ninth of 4 of 8."""


class TaskSampler:
    """Row numbers in [0, n_tasks) without end, `per_step` different ones for each step.

    A pure function of the seed, the number of steps drawn and the outcomes noted. Stateful, so
    that the data loader's checkpoint holds it and a resumed run draws what it would have drawn.
    """

    def __init__(self, n_tasks: int, *, per_step: int, seed: int) -> None:
        if not 1 <= per_step <= n_tasks:
            raise ValueError(
                f"expected at least as many tasks as a step plays ({per_step}), found {n_tasks}"
            )
        self._n_tasks, self._per_step, self._seed = n_tasks, per_step, seed
        self._steps = 0
        self._weights: dict[int, float] = {}

    def __len__(self) -> int:
        return self._n_tasks

    def __iter__(self) -> Iterator[int]:
        while True:
            drawn = self._draw()
            self._steps += 1
            yield from drawn

    def note(self, outcomes: Mapping[int, Sequence[float]]) -> None:
        """The rewards in [0, 1] of a step's episodes, by row number."""
        for row, rewards in outcomes.items():
            if rewards:
                solved = (sum(rewards) + DOUBT) / (len(rewards) + 2 * DOUBT)
                self._weights[row] = solved * (1 - solved)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "weights": dict(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps, self._weights = state["steps"], dict(state["weights"])

    def _draw(self) -> list[int]:
        first = self._steps * self._per_step
        order = random.Random(f"{self._seed}/pass").sample(range(self._n_tasks), self._n_tasks)
        fresh = order[first : first + self._per_step]
        # The first pass may end within a step; the rest is drawn like all later ones.
        rng = random.Random(f"{self._seed}/{self._steps}")
        rows = [row for row in range(self._n_tasks) if row not in fresh]
        chances = [self._weights.get(row, 0.25) for row in rows]
        drawn = list(fresh)
        while len(drawn) < self._per_step:
            at = rng.choices(range(len(rows)), chances)[0]
            drawn.append(rows.pop(at))
            chances.pop(at)
        return drawn
