"""Train and held-out pairs that have no run, no task and no image in common."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from contextrl.envs.types import Record
from contextrl.pairs.types import ImagePair, TrajectoryPair


class SplitBy(StrEnum):
    TASK = "task"
    """Bugs are held out; their functions may be known from other bugs."""
    FUNCTION = "function"
    """Whole functions are held out: the harder question."""


class Split(Record):
    train: tuple[TrajectoryPair, ...]
    held_out: tuple[TrajectoryPair, ...]
    dropped: int
    """Pairs that would have put one task or run on both sides."""


def split_pairs(
    pairs: Sequence[TrajectoryPair],
    *,
    held_out_frac: float,
    seed: int = 0,
    by: SplitBy = SplitBy.FUNCTION,
) -> Split:
    """`held_out_frac` of the tasks or functions is held out, at least one and never all of them.

    Holding out by task drops the pairs with one task on each side.
    """
    if not 0 < held_out_frac < 1:
        raise ValueError(f"held_out_frac must be between 0 and 1, got {held_out_frac}")
    keys = {key for pair in pairs for key in _keys(pair, by)}
    wanted = min(max(1, math.ceil(len(keys) * held_out_frac)), max(len(keys) - 1, 0))
    chosen = set(sorted(keys, key=lambda key: _digest(key, seed))[:wanted])

    held_out = [pair for pair in pairs if _keys(pair, by) <= chosen]
    # A task that touches two functions can still stand on both sides; held-out wins.
    seen = {identity for pair in held_out for identity in _identities(pair)}
    train = [
        pair
        for pair in pairs
        if not _keys(pair, by) & chosen and seen.isdisjoint(_identities(pair))
    ]
    return Split(
        train=tuple(train),
        held_out=tuple(held_out),
        dropped=len(pairs) - len(train) - len(held_out),
    )


def held_out_groups(
    pairs: Iterable[ImagePair], *, held_out_frac: float, seed: int = 0
) -> frozenset[str]:
    """Whole groups, so that no image is on both sides, until at least `held_out_frac` of the pairs
    are of them; never all. `pairs` are read once, one at a time."""
    if not 0 < held_out_frac < 1:
        raise ValueError(f"held_out_frac must be between 0 and 1, got {held_out_frac}")
    sizes = Counter(pair.provenance.group for pair in pairs)
    chosen: set[str] = set()
    count = 0
    for group in sorted(sizes, key=lambda key: _digest(key, seed))[:-1]:
        if count >= held_out_frac * sizes.total():
            break
        chosen.add(group)
        count += sizes[group]
    return frozenset(chosen)


def _keys(pair: TrajectoryPair, by: SplitBy) -> set[str]:
    if by is SplitBy.TASK:
        return {pair.positive.task_id, pair.negative.task_id}
    where = pair.provenance
    return {"\0".join((where.repo, where.base_commit, where.file, where.function))}


def _identities(pair: TrajectoryPair) -> Iterable[tuple[str, str]]:
    for context in (pair.positive, pair.negative):
        yield "task", context.task_id
        yield "run", context.trajectory_id


def _digest(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"split {seed} {key}".encode()).digest()
