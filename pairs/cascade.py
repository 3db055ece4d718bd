"""Runs and their tasks -> contrastive pairs, and a count after every stage.

Same repository and commit -> same file -> same function -> different bug -> both runs saw their
bug -> the patch is unreadable -> the evidence stands on one side only -> caps. Counts are of runs
first, then of ordered pairs of runs: each order asks about another patch.

When all bugs of a function are mutations of one original, both contexts show that function with a
different wrong line, and the line that the answer removes can be read in the positive one only.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from itertools import permutations

from contextrl.agents.types import Trajectory
from contextrl.envs.types import Record, Task
from contextrl.pairs.caps import Candidate, Caps, Function, within
from contextrl.pairs.errors import PairsError
from contextrl.pairs.evidence import (
    PairStage,
    ReadTaskSource,
    Run,
    RunStage,
    gather,
    is_different_bug,
    pair_id_of,
    pair_of,
    rejection,
    understand,
)
from contextrl.pairs.types import TrajectoryPair

logger = logging.getLogger(__name__)

MINER = "cascade/1"


class StageCount(Record):
    """How many came to a stage and how many went on."""

    name: str
    unit: str
    """`runs` or `pairs`; pairs are ordered."""
    seen: int
    kept: int


class MiningResult(Record):
    pairs: tuple[TrajectoryPair, ...]
    """Sorted by id."""
    stages: tuple[StageCount, ...]


def mine(
    trajectories: Iterable[Trajectory],
    tasks: Iterable[Task],
    *,
    seed: int = 0,
    caps: Caps | None = None,
    read_source: ReadTaskSource | None = None,
) -> MiningResult:
    """Pairs and stage counts: a function of the SET of inputs and the seed, not of their sequence.

    Raises:
        PairsError: one trajectory id or task id stands for two different records.
    """
    runs, stages = _runs(trajectories, tasks, read_source)
    count = len(runs) * (len(runs) - 1)
    for name, keys in (
        ("same repository and commit", [frozenset([run.commit]) for run in runs]),
        ("same file", [run.files for run in runs]),
        ("same function", [run.functions for run in runs]),
    ):
        stages.append(StageCount(name=name, unit="pairs", seen=count, kept=sharing(keys)))
        count = stages[-1].kept

    candidates: list[Candidate[Run]] = []
    lost: Counter[PairStage] = Counter()
    for function, group in _by_function(runs):
        evidence = cache(gather)  # per function, so that masked texts do not pile up
        for positive, negative in permutations(group, 2):
            if min(positive.functions & negative.functions) != function:
                continue  # counted under the first function they share
            if not is_different_bug(positive, negative):
                lost[PairStage.DIFFERENT_BUG] += 1
            elif (stage := rejection(evidence(positive), evidence(negative))) is not None:
                lost[stage] += 1
            else:
                candidates.append(Candidate(positive, negative, function))
    for pair_stage in PairStage:
        kept = count - lost[pair_stage]
        stages.append(StageCount(name=pair_stage, unit="pairs", seen=count, kept=kept))
        count = kept

    chosen = within(
        caps or Caps(), candidates, seed, key=lambda each: pair_id_of(each.positive, each.negative)
    )
    stages.append(StageCount(name="within the caps", unit="pairs", seen=count, kept=len(chosen)))
    for each in stages:
        logger.info("%s: kept %d/%d %s", each.name, each.kept, each.seen, each.unit)
    evidence = cache(gather)
    pairs = [pair_of(evidence(c.positive), evidence(c.negative), c.function, MINER) for c in chosen]
    return MiningResult(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.pair_id)), stages=tuple(stages)
    )


def _runs(
    trajectories: Iterable[Trajectory], tasks: Iterable[Task], read_source: ReadTaskSource | None
) -> tuple[list[Run], list[StageCount]]:
    """Usable runs sorted by id, and the counts of the stages that chose them."""
    task_by_id: dict[str, Task] = {}
    for task in tasks:
        if task_by_id.setdefault(task.task_id, task) != task:
            raise PairsError(f"expected one task per id, found two different {task.task_id}")
    by_id: dict[str, Trajectory] = {}
    seen = 0
    for trajectory in trajectories:
        seen += 1
        if by_id.setdefault(trajectory.trajectory_id, trajectory) != trajectory:
            raise PairsError(
                "expected one trajectory per id, found two different "
                f"{trajectory.trajectory_id}; read their runs under different names"
            )
    lost: Counter[RunStage] = Counter()
    runs: dict[str, Run] = {}
    for _, trajectory in sorted(by_id.items()):
        known = task_by_id.get(trajectory.task_id)
        run = understand(trajectory, known, read_source) if known else RunStage.TASK_KNOWN
        if isinstance(run, RunStage):
            lost[run] += 1
        else:
            runs.setdefault(run.content_digest, run)
    stages, count = [], seen
    for stage in RunStage:
        kept = len(runs) if stage is RunStage.DISTINCT else count - lost[stage]
        stages.append(StageCount(name=stage, unit="runs", seen=count, kept=kept))
        count = kept
    return list(runs.values()), stages


def sharing(keys: Sequence[frozenset[Hashable]]) -> int:
    """Ordered pairs of runs that have a key in common, without going through the pairs."""
    classes = Counter(keys)
    by_key: defaultdict[Hashable, list[frozenset[Hashable]]] = defaultdict(list)
    for each in classes:
        for key in each:
            by_key[key].append(each)
    linked = {couple for group in by_key.values() for couple in permutations(group, 2)}
    return sum(n * (n - 1) for each, n in classes.items() if each) + sum(
        classes[first] * classes[second] for first, second in linked
    )


def _by_function(runs: Sequence[Run]) -> list[tuple[Function, list[Run]]]:
    groups: defaultdict[Function, list[Run]] = defaultdict(list)
    for run in runs:
        for function in run.functions:
            groups[function].append(run)
    return sorted(groups.items(), key=lambda item: item[0])
