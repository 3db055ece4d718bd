"""What the verbs of `contextrl mine` print alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextrl.pairs.stages import StageCount

REASONS = 3
"""Printed of why rows or pairs were lost; a server may word each one anew."""


def stage_table(stages: Sequence[StageCount]) -> str:
    """One line per stage: kept/seen, unit, name."""
    lines = [f"  {each.kept:>9}/{each.seen:<9} {each.unit:<6} {each.name}" for each in stages]
    return "\n".join([f"  {'kept':>9}/{'seen':<9} {'of':<6} stage", *lines])


def some(reasons: Iterable[str]) -> str:
    """The first few different ones."""
    shown = list(dict.fromkeys(reasons))
    more = f"; and {len(shown) - REASONS} other reasons" if len(shown) > REASONS else ""
    return "; ".join(shown[:REASONS]) + more
