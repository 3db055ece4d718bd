"""Right padding needs no mask under causal attention: no token sees what stands behind it.

Without one PyTorch's attention takes its causal path, which leaves out the half above the diagonal.

Shape letters: B sequences, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def drop_padding_mask(inputs: dict[str, Any]) -> None:
    """Of a causal model's inputs: the padding mask goes where it pads on the right only.

    `position_ids` ([B, T], or [4, B, T] with the text's first) count on through the padding, since
    transformers takes positions that start again for a further sequence in the same row.
    """
    mask_B_T = inputs.get("attention_mask")
    if not isinstance(mask_B_T, Tensor) or mask_B_T.ndim != 2:
        return
    if bool((mask_B_T[:, 1:] > mask_B_T[:, :-1]).any()):
        return
    inputs["attention_mask"] = None
    if inputs.get("position_ids") is None:
        return
    positions = inputs["position_ids"].clone()
    text_B_T = positions[0] if positions.ndim == 3 else positions
    text_B_T[:] = torch.arange(text_B_T.shape[1], device=text_B_T.device)
    inputs["position_ids"] = positions
