"""Logits of chosen positions alone: a pair of 32k tokens costs one row of the vocabulary.

Shapes: [B, T, H] padded hidden states, [1, P, H] packed ones, [1, S, V] the logits that come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor


def last_position_logits(
    model: Any, offsets: Tensor, *, packed: bool
) -> AbstractContextManager[list[int]]:
    """Of the last position of each row; `offsets` [B + 1] are where the rows begin, packed."""
    return logits_at(model, offsets[1:] - 1, offsets=None if packed else offsets)


@contextmanager
def logits_at(model: Any, at_S: Tensor, *, offsets: Tensor | None) -> Iterator[list[int]]:
    """Hidden states are cut to the positions `at_S` right before the output layer.

    A pre-hook works for text, vision, PEFT and veRL's patched forwards alike, where
    `logits_to_keep` does not. Positions are those of the packed batch; for a padded one `offsets`
    [B + 1] say where its rows begin there. Yields a list that is non-empty once the hook ran.
    """
    hits: list[int] = []
    row_S: Tensor | None = None
    if offsets is not None:
        row_S = torch.searchsorted(offsets, at_S, right=True) - 1
        at_S = at_S - offsets[row_S]

    def keep(_: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]
        hits.append(hidden.shape[1])
        return (hidden[:, at_S] if row_S is None else hidden[row_S, at_S][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield hits
    finally:
        handle.remove()
