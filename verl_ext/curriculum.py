"""Which reading drill comes next: stages in order, passed by accuracy, earlier ones kept fresh."""

from __future__ import annotations

import logging
import random
from collections import deque

from contextrl.verl_ext.drills import DrillMaker

logger = logging.getLogger(__name__)

PASSED = 0.93
"""Accuracy over the last `WINDOW` batches of a stage that promotes to the next."""
WINDOW, LEAST_BATCHES = 6, 8
EARLIER_FRAC, EARLIER_STAGES = 0.25, 5
"""Share of batches from one of the stages before, and from how many of them."""


class Curriculum:
    """Goes from stage to stage as accuracies are noted.

    A stage that `patience` batches did not bring to `PASSED` is left for the next: the later ones
    teach it too. Not so the first `maker.n_basic`, without which nothing later is learned.
    """

    def __init__(self, maker: DrillMaker, *, patience: int, seed: int) -> None:
        self._maker, self._patience = maker, patience
        self._rng = random.Random(seed)
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._batches = 0
        self.at = 0
        self.passed = 0

    def draw(self) -> int:
        """The stage of the next batch."""
        if self.at == 0 or self._rng.random() >= EARLIER_FRAC:
            return self.at
        return self._rng.randrange(max(0, self.at - EARLIER_STAGES), self.at)

    def note(self, stage: int, accuracy: float) -> None:
        """What a batch of `stage` came to, in [0, 1]."""
        self._batches += 1
        if stage == self.at:
            self._recent.append(accuracy)
        learned = len(self._recent) == WINDOW and sum(self._recent) / WINDOW > PASSED
        enough = self.basics_passed and self._batches >= self._patience
        last = self.at == len(self._maker.stages) - 1
        if not last and ((learned and self._batches >= LEAST_BATCHES) or enough):
            verb = "passed" if learned else "left"
            logger.info("drill '%s' %s after %d batches", self.name, verb, self._batches)
            self.at, self.passed, self._batches = self.at + 1, self.passed + learned, 0
            self._recent.clear()

    @property
    def basics_passed(self) -> bool:
        return self.at >= self._maker.n_basic

    @property
    def name(self) -> str:
        return self._maker.stages[self.at][0]

    @property
    def accuracy(self) -> float:
        """Over the last batches of the stage it is at; 0 before there were any."""
        return sum(self._recent) / max(1, len(self._recent))
