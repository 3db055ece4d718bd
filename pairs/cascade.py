"""Runs of our own and their tasks -> contrastive pairs, and a count after every stage.

The stages, in order (`corpus_miner`, the one path for our own runs and for public ones):

    a run     its row can be read, infrastructure held, repository and commit are known, a fix is
              known and can be read, it is of the run's own repository and inside a function (index)
    a couple  same repository and commit -> same file -> same function -> different bug -> related
              issues, where that is asked -> drawn (corpus)
    a pair    both runs saw their bug -> no added line can be read -> the evidence stands on one
              side only (twins) -> caps (caps)

Counts are of runs first, then of ordered pairs of runs: each order asks about another patch. When
all bugs of a function are mutations of one original, both contexts show that function with a
different wrong line, and the line that the answer removes can be read in the positive one only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from contextrl.agents.types import Trajectory
from contextrl.envs.leases import leased_folder
from contextrl.envs.types import Record, Task
from contextrl.pairs.caps import Caps
from contextrl.pairs.corpus_miner import MINER, MineSettings, mine_corpus
from contextrl.pairs.errors import PairsError
from contextrl.pairs.evidence import ReadTaskSource
from contextrl.pairs.index import IndexOptions
from contextrl.pairs.sources import instance_of_task
from contextrl.pairs.stages import StageCount, sharing
from contextrl.pairs.types import Instance, TrajectoryPair

logger = logging.getLogger(__name__)

__all__ = ["MINER", "Caps", "MiningResult", "StageCount", "mine", "sharing"]


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

    All couples are checked, none is drawn first, and issues are not compared: those of mutations
    are written by a template.

    Raises:
        PairsError: no run, or one trajectory id or task id stands for two different records.
    """
    instances: dict[str, Instance] = {}
    for task in tasks:
        instance = instance_of_task(task)
        if instances.setdefault(task.task_id, instance) != instance:
            raise PairsError(f"expected one task per id, found two different {task.task_id}")
    by_id: dict[str, Trajectory] = {}
    for trajectory in trajectories:
        if by_id.setdefault(trajectory.trajectory_id, trajectory) != trajectory:
            raise PairsError(
                "expected one trajectory per id, found two different "
                f"{trajectory.trajectory_id}; read their runs under different names"
            )
    if not by_id:
        raise PairsError("expected runs to mine, found none; play some first (contextrl rollout)")
    with leased_folder("contextrl-mine-") as scratch:
        result = mine_corpus(
            [str(_written(by_id, scratch / "runs.jsonl"))],
            scratch,
            IndexOptions(instances=instances, known_only=True, read_source=read_source),
            MineSettings(caps=caps or Caps(), bounds=None, draw_factor=None, seed=seed, workers=1),
        )
        for stage in result.stages:
            logger.info("%s: kept %d/%d %s", stage.name, stage.kept, stage.seen, stage.unit)
        return MiningResult(pairs=tuple(result), stages=result.stages)


def _written(by_id: dict[str, Trajectory], path: Path) -> Path:
    """Without what the miner does not read."""
    with path.open("w", encoding="utf-8", errors="surrogatepass") as stream:
        for _, trajectory in sorted(by_id.items()):
            bare = trajectory.model_copy(update={"steps": (), "tokens": None})
            stream.write(bare.model_dump_json() + "\n")
    return path
