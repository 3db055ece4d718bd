"""Encoded pairs -> `PairBatch`. Past this point nobody knows what a context was.

Shape letters: B pairs, T tokens of one prompt, O option tokens per letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contextrl.pairs.render import EncodedPair


@dataclass(frozen=True, slots=True)
class PairBatch:
    """One micro-batch of the CA pass."""

    input_ids: Tensor
    """Jagged [B, T]; the scored position is the last token of each row."""
    position_ids: Tensor
    """Jagged, like `input_ids`."""
    correct_B_O: Tensor
    other_B_O: Tensor

    def __len__(self) -> int:
        return int(self.correct_B_O.shape[0])

    def to(self, device: str | int | torch.device) -> PairBatch:
        return PairBatch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.correct_B_O.to(device),
            self.other_B_O.to(device),
        )


def collate(pairs: Sequence[EncodedPair]) -> PairBatch:
    """Pack pairs of any lengths; letters with fewer spellings repeat their first one."""
    if not pairs:
        raise ValueError("cannot collate an empty list of pairs")
    width = max(max(len(pair.correct_ids), len(pair.other_ids)) for pair in pairs)
    return PairBatch(
        input_ids=_jagged([torch.tensor(pair.token_ids) for pair in pairs]),
        position_ids=_jagged([torch.arange(len(pair.token_ids)) for pair in pairs]),
        correct_B_O=torch.tensor([_widen(pair.correct_ids, width) for pair in pairs]),
        other_B_O=torch.tensor([_widen(pair.other_ids, width) for pair in pairs]),
    )


def _jagged(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def _widen(ids: Sequence[int], width: int) -> list[int]:
    return [*ids, *[ids[0]] * (width - len(ids))]
