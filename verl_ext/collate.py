"""Encoded pairs -> `PairBatch`. Past this point nobody knows what a context was.

Shape letters: B pairs, T tokens of one prompt, O option tokens per letter, C coordinates of a
position: one for a model of text, four for one that sees.
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
    """Jagged like `input_ids`, [B, T], or [B, C, T] for a model that sees."""
    correct_B_O: Tensor
    other_B_O: Tensor
    seen: tuple[dict[str, Tensor], ...] | None = None
    """Per pair its image features under the model's own names, empty for a pair of texts; None for
    a model of text."""

    def __len__(self) -> int:
        return int(self.correct_B_O.shape[0])

    def to(self, device: str | int | torch.device) -> PairBatch:
        return PairBatch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.correct_B_O.to(device),
            self.other_B_O.to(device),
            None
            if self.seen is None
            else tuple({k: v.to(device) for k, v in each.items()} for each in self.seen),
        )


def collate(pairs: Sequence[EncodedPair]) -> PairBatch:
    """Pack pairs of any lengths; letters with fewer spellings repeat their first one."""
    if not pairs:
        raise ValueError("cannot collate an empty list of pairs")
    seen = [pair.vision for pair in pairs]
    if any(vision is None for vision in seen) != all(vision is None for vision in seen):
        raise ValueError("pairs of one batch must be encoded for one model")
    width = max(max(len(pair.correct_ids), len(pair.other_ids)) for pair in pairs)
    return PairBatch(
        input_ids=jagged([torch.tensor(pair.token_ids) for pair in pairs]),
        position_ids=jagged(
            [torch.arange(len(pair.token_ids)) for pair in pairs]
            if seen[0] is None
            else [vision.positions for vision in seen]
        ),
        correct_B_O=torch.tensor([_widen(pair.correct_ids, width) for pair in pairs]),
        other_B_O=torch.tensor([_widen(pair.other_ids, width) for pair in pairs]),
        seen=None if seen[0] is None else tuple(vision.model_inputs() for vision in seen),
    )


def jagged(rows: Sequence[Tensor]) -> Tensor:
    """Rows of [T] or [C, T] -> [B, T] or [B, C, T], jagged in the LAST axis whatever the lengths.

    torch infers the jagged axis from the shapes, and so a wrong one where all rows have one length.
    """
    lengths_B = torch.tensor([row.shape[-1] for row in rows])
    offsets = torch.cat([lengths_B.new_zeros(1), lengths_B.cumsum(0)]).to(rows[0].device)
    return torch.nested.nested_tensor_from_jagged(
        torch.cat(list(rows), dim=-1),
        offsets,
        jagged_dim=rows[0].dim(),
        min_seqlen=int(lengths_B.min()),
        max_seqlen=int(lengths_B.max()),
    )


def rows_of_positions(position_ids: Tensor, n_coordinates: int = 4) -> list[Tensor]:
    """[C, T] of each row, from whatever a queue made of them: dense [B, C, T], or jagged in T, or
    jagged in C, which is what torch makes of rows that all have one length."""
    if not position_ids.is_nested:
        return list(position_ids.unbind())
    values, lengths = position_ids.values(), position_ids.offsets().diff().tolist()
    if values.shape[0] == n_coordinates and values.shape[-1] == sum(lengths):
        return list(values.split(lengths, dim=-1))
    return list(values.reshape(-1, n_coordinates, values.shape[-1]).unbind())


def _widen(ids: Sequence[int], width: int) -> list[int]:
    return [*ids, *[ids[0]] * (width - len(ids))]
