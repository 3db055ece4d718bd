"""The key/value cache of the generation engine: preallocated, addressed by rows.

Shape letters: R cache rows, H key/value heads, L cache length, D head size, T new tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class RowCache(Cache):  # type: ignore[misc]
    """A key and a value tensor per layer. The engine sets the window before each forward."""

    def __init__(self, model: Any, rows: int, length: int) -> None:
        config = model.config.get_text_config()
        heads = config.num_key_value_heads
        size = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        shape = (rows, heads, length, size)
        parameter = next(model.parameters())
        self.keys = [
            torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
            for _ in range(config.num_hidden_layers)
        ]
        self.values = [torch.zeros_like(key) for key in self.keys]
        self.rows: slice | Tensor = slice(0, 0)
        self.starts_R = torch.zeros(0, dtype=torch.long)
        self.visible = 0

    def window(self, rows: slice | Tensor, starts_R: Tensor, new_tokens: int) -> None:
        """The next forward writes `new_tokens` per row of `rows`, beginning at `starts_R`."""
        self.rows, self.starts_R = rows, starts_R
        self.visible = int(starts_R.max()) + new_tokens

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` positions of a row become those of another."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write [R, H, T, D] into the window; return all that is visible of its rows, [R, H, L, D].

        A slice of rows returns views; scattered rows are gathered, which copies.
        """
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        new_tokens = key_states.shape[2]
        if new_tokens == 1:
            row_R = (
                torch.arange(self.rows.start, self.rows.stop, device=keys.device)
                if isinstance(self.rows, slice)
                else self.rows
            )
            keys[row_R, :, self.starts_R] = key_states[:, :, 0]
            values[row_R, :, self.starts_R] = value_states[:, :, 0]
        else:  # a prefill: one row
            start = int(self.starts_R[0])
            keys[self.rows, :, start : start + new_tokens] = key_states
            values[self.rows, :, start : start + new_tokens] = value_states
        return keys[self.rows, :, : self.visible], values[self.rows, :, : self.visible]

    def get_seq_length(self, layer_idx: int = 0, *_: Any) -> int:
        return self.visible

    @property
    def is_compileable(self) -> bool:
        return False
