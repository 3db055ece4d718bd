"""What a model that sees needs besides tokens, and the check that both fit each other.

Shape letters: B prompts, T tokens of one prompt, I images of one prompt, P patches, D values of a
patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contextrl.verl_ext.errors import ImageTokensError

ROW_KEY = "contextrl_row"
"""Of `VisionInputs.model_inputs`: the row's id in UTF-8, since veRL carries only tensors there."""


@dataclass(frozen=True, slots=True)
class VisionInputs:
    """What one prompt needs besides its tokens."""

    row_id: str
    positions: Tensor
    """[4, T]: the place in the text, then time, height and width (M-RoPE)."""
    pixel_values: Tensor | None
    """[P, D]; None when the prompt shows no image."""
    grid_thw: Tensor | None
    """[I, 3] patches in time, height and width."""

    def model_inputs(self) -> dict[str, Tensor]:
        """Under the model's own names, and the row's id for whoever finds fault with them."""
        found = {ROW_KEY: torch.tensor(list(self.row_id.encode()), dtype=torch.uint8)}
        if self.pixel_values is not None and self.grid_thw is not None:
            found |= {"pixel_values": self.pixel_values, "image_grid_thw": self.grid_thw}
        return found


def extended(positions: Tensor, n_more: int) -> Tensor:
    """[4, T] -> [4, T + n_more]: text goes on one step at a time from the furthest position."""
    if n_more == 0:
        return positions
    more = torch.arange(1, n_more + 1)
    text = positions[:1, -1:] + more
    seen = (positions[1:].max() + more).expand(3, -1)
    return torch.cat([positions, torch.cat([text, seen])], dim=1)


def check_placeholders(
    ids_per_row: Sequence[Tensor], inputs_per_row: Sequence[dict[str, Tensor] | None], config: Any
) -> None:
    """Every row holds one image token for each image feature.

    Raises `ImageTokensError` naming the first row that does not.
    """
    merge = config.vision_config.spatial_merge_size
    for number, (ids_T, inputs) in enumerate(zip(ids_per_row, inputs_per_row, strict=True)):
        inputs = inputs or {}
        grid_thw = inputs.get("image_grid_thw")
        n_features = 0 if grid_thw is None else int((grid_thw.prod(dim=1) // merge**2).sum())
        n_tokens = int((ids_T == config.image_token_id).sum())
        if n_tokens != n_features:
            name = inputs.get(ROW_KEY)
            row_id = str(number) if name is None else bytes(name.tolist()).decode()
            require_equal(n_tokens, n_features, row_id)


def require_equal(n_tokens: int, n_features: int, row_id: str) -> None:
    if n_tokens != n_features:
        raise ImageTokensError(
            f"row {row_id}: expected one image token for each of its {n_features} image features, "
            f"found {n_tokens}; its prompt and its images were prepared apart"
        )


def is_vision(config: Any) -> bool:
    """Of a Hugging Face configuration: a model of text and images, as the Qwen-VL ones are."""
    return hasattr(config, "vision_config") and hasattr(config, "image_token_id")


def plain_vision_output(model: Any) -> None:
    """The vision tower of `model` returns its features as a bare tensor.

    veRL 0.9.1 adds the mean of a dummy image's features to a batch of texts, so that every rank
    runs the tower; for Qwen2.5-VL it expects a tensor there, and transformers 5 returns a record.
    Qwen3-VL's tower has further outputs, which veRL unpacks correctly.
    """
    tower = getattr(getattr(model, "model", None), "visual", None)
    if tower is not None and not hasattr(tower, "deepstack_visual_indexes"):
        tower.register_forward_hook(lambda _, __, output: getattr(output, "pooler_output", output))


def freeze_vision_tower(model: Any) -> None:
    """Features as they are, the projection into the language model included."""
    model.model.visual.requires_grad_(False)
