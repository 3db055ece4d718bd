"""Attention within images, those of one size together, for a CPU.

Where flash-attn is not asked for, the vision towers of transformers attend to one image, or one
window of it, after the other: a batch of small images spends its time on calls. They hand the
lengths over only to an implementation with `flash` in its name, so ours has it.

Shape letters: H heads, S patches of all images, D head size; N chunks of L patches each, K patches
of one length.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

BY_LENGTH = "contextrl_flash_by_length"


def attend_by_length(model: Any) -> None:
    """The vision tower of `model`, if it has one, attends to chunks of one length at once.

    Its layers get a configuration of their own: the model's is what checkpoints are made from.
    """
    tower = getattr(getattr(model, "model", None), "visual", None)
    if tower is None or tower.config._attn_implementation != "sdpa":
        return
    own = copy.copy(tower.config)
    own._attn_implementation = BY_LENGTH
    for module in tower.modules():
        if type(module).__name__.endswith("VisionAttention"):
            module.config = own


def attention_by_length(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """[1, H, S, D] each -> [1, S, H, D]; a patch attends to those of its own chunk."""
    qkv = torch.cat([query, key, value]).transpose(1, 2)  # [3, S, H, D]
    lengths_N = cu_seq_lens_q.diff()
    if len(lengths := lengths_N.unique().tolist()) == 1:
        return _attend(qkv, lengths[0], scaling)[None], None
    of_S = torch.repeat_interleave(lengths_N, lengths_N)
    places = [(of_S == length).nonzero()[:, 0] for length in lengths]
    parts = [
        _attend(qkv[:, at_K], length, scaling) for at_K, length in zip(places, lengths, strict=True)
    ]
    return torch.cat(parts)[torch.cat(places).argsort()][None], None


def _attend(qkv: Tensor, length: int, scaling: float) -> Tensor:
    """[3, N x L, H, D] -> [N x L, H, D]."""
    _, _, heads, size = qkv.shape
    query, key, value = qkv.reshape(3, -1, length, heads, size).transpose(2, 3)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
    return out.transpose(1, 2).reshape(-1, heads, size)


ALL_ATTENTION_FUNCTIONS.register(BY_LENGTH, attention_by_length)
