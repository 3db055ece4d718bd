"""Images with patches blackened at random: a pure function of (seed, step, row).

The patches are the model's own, so black pixels and black features are the same thing, and nothing
has to be drawn, resized or prepared a second time.

Shape letters as in `vision`: P patches, D values of a patch; C colours.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from contextrl.verl_ext.vision import ROW_KEY


def masked_patches(n_patches: int, *, ratio: float, seed: int, step: int, row_id: str) -> Tensor:
    """[P] of bool: True for a share of about `ratio`, each patch by a coin of its own.

    All replies to one question at one step see one mask; the next step draws another.
    """
    digest = hashlib.sha256(f"mask {seed} {step} {row_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(n_patches, generator=generator) < ratio


def black_patch(image_processor: Any, n_values: int) -> Tensor:
    """[D], colour by colour: what a stock processor makes of a black patch."""
    mean_C, std_C = (
        torch.tensor(image_processor.image_mean),
        torch.tensor(image_processor.image_std),
    )
    return (-mean_C / std_C).repeat_interleave(n_values // len(mean_C))


def with_masked_images(
    inputs: dict[str, Tensor], image_processor: Any, *, ratio: float, seed: int, step: int
) -> dict[str, Tensor]:
    """`VisionInputs.model_inputs` of one row with its images masked; a row without any as it is."""
    pixels_P_D = inputs.get("pixel_values")
    if pixels_P_D is None:
        return inputs
    row_id = bytes(inputs[ROW_KEY].tolist()).decode()
    masked_P = masked_patches(len(pixels_P_D), ratio=ratio, seed=seed, step=step, row_id=row_id)
    black_D = black_patch(image_processor, pixels_P_D.shape[1]).to(pixels_P_D)
    masked_P_D = torch.where(masked_P[:, None].to(pixels_P_D.device), black_D, pixels_P_D)
    return {**inputs, "pixel_values": masked_P_D}
