"""Logits of the scored positions alone: a pair of 32k tokens costs one row of the vocabulary.

Shapes: [B, T, H] padded hidden states, [1, N, H] packed ones, [1, B, V] the logits that come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def last_position_logits(model: Any, offsets: Tensor, *, packed: bool) -> Iterator[list[int]]:
    """Hidden states are cut to the last position of each row right before the output layer.

    A pre-hook works for text, vision, PEFT and veRL's patched forwards alike, where
    `logits_to_keep` does not. `offsets` [B + 1] are where the rows begin in the packed batch.
    Yields a list that is non-empty once the hook ran.
    """
    hits: list[int] = []

    def keep_last(_: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = args[0]
        hits.append(hidden.shape[1])
        if packed:
            return (hidden[:, offsets[1:] - 1], *args[1:])
        row_B = torch.arange(hidden.shape[0], device=hidden.device)
        return (hidden[row_B, offsets.diff() - 1][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep_last)
    try:
        yield hits
    finally:
        handle.remove()
