"""Rows of veRL's batches, taken without making every row a tensor of its own.

veRL 0.9.1 cuts mini-batches and micro-batches out of jagged tensors by unbinding all of their
rows. On a CPU that was a third of the update of a tiny model: 256 rows, ten columns, 16 times.

Shape letters: B rows, N those taken, S values of all rows, T of those taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils

_usual_select: Any = tensordict_utils.index_select_tensor_dict
_usual_chunks: Any = tensordict_utils.chunk_tensordict


def index_select_tensor_dict(batch: TensorDict | None, indices: Tensor | list[int]) -> Any:
    """The rows of `batch` with these numbers, as veRL's function of this name gives them."""
    jagged, at_N = _jagged(batch), torch.as_tensor(indices)
    if batch is None or at_N.dim() != 1:
        return _usual_select(batch, indices)
    taken = _usual_select(batch.exclude(*jagged), at_N)
    for key, column in jagged.items():
        taken[key] = _rows(column, at_N)
    return taken


def chunk_tensordict(td: TensorDict, chunks: int) -> Sequence[TensorDict]:
    """`td` in so many equal parts."""
    jagged = _jagged(td)
    if len(td) % chunks:
        return _usual_chunks(td, chunks)  # type: ignore[no-any-return] # it says what is wrong
    parts: Sequence[TensorDict] = _usual_chunks(td.exclude(*jagged), chunks)
    for at_N, part in zip(torch.arange(len(td)).chunk(chunks), parts, strict=True):
        for key, column in jagged.items():
            part[key] = column if chunks == 1 else _rows(column, at_N)
    return parts


def _jagged(batch: TensorDict | None) -> dict[str, Tensor]:
    """Its jagged columns without holes; others are left to veRL."""
    return {
        key: column
        for key, column in (() if batch is None else batch.items())
        if isinstance(column, Tensor)
        and column.is_nested
        and column.layout is torch.jagged
        and column.lengths() is None
    }


def _rows(column: Tensor, at_N: Tensor) -> Tensor:
    ragged: int = column._ragged_idx  # type: ignore[attr-defined]
    values_S, offsets = column.values(), column.offsets()
    at_N = at_N.to(offsets.device)
    lengths_N = offsets.diff()[at_N]
    taken_offsets = torch.cat([lengths_N.new_zeros(1), lengths_N.cumsum(0)])
    shift_N = offsets[:-1][at_N] - taken_offsets[:-1]
    at_T = torch.arange(int(taken_offsets[-1]), device=offsets.device)
    at_T += shift_N.repeat_interleave(lengths_N)
    return torch.nested.nested_tensor_from_jagged(
        values_S.index_select(ragged - 1, at_T),
        taken_offsets,
        jagged_dim=ragged,
        min_seqlen=int(lengths_N.min()),
        max_seqlen=int(lengths_N.max()),
    )


def install() -> None:
    """veRL's iterators and engines find them under its own names."""
    tensordict_utils.index_select_tensor_dict = index_select_tensor_dict
    tensordict_utils.chunk_tensordict = chunk_tensordict
