"""Runs and their tasks -> contrastive pairs, and a count after every stage.

Same repository and commit -> same file -> same function -> different bug -> readable evidence on
both sides -> patch unreadable -> not ambiguous -> caps. Counts are of runs first, then of ordered
pairs of runs: (positive, negative) and (negative, positive) ask about different patches.

When all bugs of a function are mutations of one original, both contexts show that function with a
different wrong line, and the line that the answer removes can be read in the positive one only.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from contextrl.agents.types import Trajectory
from contextrl.envs.types import Record, Task
from contextrl.pairs.diffs import Region, touched_regions
from contextrl.pairs.errors import PairsError
from contextrl.pairs.evidence import Evidence, Run, gather, pair_of, rejection, understand

logger = logging.getLogger(__name__)

MINER = "cascade/1"

ReadTaskSource = Callable[[Task, str], str | None]
"""(task, path) -> the file at the task's commit, for names by syntax tree; None if not at hand."""


class StageCount(Record):
    """How many came to a stage and how many went on."""

    name: str
    unit: str
    """`runs` or `pairs` (ordered)."""
    seen: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """No function, file, run or couple of bugs may dominate the set."""

    per_function: int = 64
    per_file: int = 512
    per_trajectory: int = 8
    """On either side of a pair."""
    per_bug_couple: int = 2
    """Pairs with the same (positive task, negative task)."""
    limit: int | None = None
    """Pairs in all."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"caps.{name} must be positive, got {value}")


class MiningResult(Record):
    pairs: tuple["Pair", ...]  # noqa: UP037
    stages: tuple[StageCount, ...]
