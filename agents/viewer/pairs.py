"""A contrastive pair as a viewer shows it: two columns, aligned, with what decides between them.

`pairs` lies above this package, so its records come in as these, made where both are known.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field

from contextrl.envs.types import Record


class Label(StrEnum):
    """What a reviewer says of a mined pair."""

    VALID = "VALID"
    INVALID = "INVALID"
    UNCERTAIN = "UNCERTAIN"


class Cell(Record):
    """One message of one side."""

    role: str
    text: str
    decisive: tuple[str, ...] = ()
    """Lines of the text that decide the pair."""


class AlignedRow(Record):
    left: Cell | None = None
    right: Cell | None = None
    same: bool = False


class PairView(Record):
    pair_id: str
    question: str
    answer: str
    where: str = ""
    """Repository, file and function."""
    positive_id: str = ""
    negative_id: str = ""
    rows: tuple[AlignedRow, ...] = ()
    margins: dict[str, float] = Field(default_factory=dict)
    """By option order, nats: log p(correct letter) - log p(other); empty without a probe."""
    label: Label | None = None

    @property
    def divergent(self) -> int:
        """The first row in which the sides differ."""
        return next((n for n, row in enumerate(self.rows) if not row.same), len(self.rows))

    def row(self) -> dict[str, Any]:
        """For a table."""
        return {
            "id": self.pair_id,
            "where": self.where,
            "label": str(self.label or ""),
            "rows": len(self.rows),
            "margins": self.margins,
        }


def align(left: Sequence[Cell], right: Sequence[Cell]) -> tuple[AlignedRow, ...]:
    """Equal messages face each other; between them the differing ones do in order."""
    keys = [[(cell.role, cell.text) for cell in side] for side in (left, right)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    rows: list[AlignedRow] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(left[a:b], right[c:d], strict=True)
            rows += [AlignedRow(left=one, right=two, same=True) for one, two in pairs]
            continue
        for offset in range(max(b - a, d - c)):
            rows.append(
                AlignedRow(
                    left=left[a + offset] if a + offset < b else None,
                    right=right[c + offset] if c + offset < d else None,
                )
            )
    return tuple(rows)
