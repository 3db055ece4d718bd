"""Mined pairs in one folder, or divided into `train` and `held-out` below it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.pairs.types import TrajectoryPair

TRAIN, HELD_OUT = "train", "held-out"


class HoldOutBy(StrEnum):
    TASK = "task"
    FUNCTION = "function"


def part_folders(out: Path, held_out_frac: float, *, overwrite: bool) -> dict[str, Path]:
    """By part; one nameless part when nothing is held out. Refuses before the work, not after."""
    from contextrl.pairs.errors import PairFileError
    from contextrl.pairs.store import is_complete

    parts = {TRAIN: out / TRAIN, HELD_OUT: out / HELD_OUT} if held_out_frac else {"": out}
    for folder in parts.values():
        if is_complete(folder) and not overwrite:
            raise PairFileError(
                f"expected no pairs in {folder}, found a complete set; pass --overwrite or "
                "another --out"
            )
    return parts


def divided(
    pairs: Iterable[TrajectoryPair], held_out_frac: float, by: HoldOutBy, seed: int
) -> dict[str, Iterable[TrajectoryPair]]:
    """No run and no task is in two parts; pairs that stand on both sides are dropped."""
    if not held_out_frac:
        return {"": pairs}
    from contextrl.pairs.splits import SplitBy, split_pairs

    split = split_pairs(tuple(pairs), held_out_frac=held_out_frac, seed=seed, by=SplitBy(by.value))
    if split.dropped:
        typer.echo(f"{split.dropped} pairs had a task on each side and were dropped", err=True)
    return {TRAIN: split.train, HELD_OUT: split.held_out}
