"""THE way images reach a model: rollout, training, warm-up and probe all come through here.

An image file is opened by `pairs.images`, resized once to what the model's patches ask for, and
turned into features by the model's own stock processor. The prompt then holds exactly one token
per feature, and `check_placeholders` says so again before every forward.

Shape letters: B prompts, T tokens of one prompt, I images of one prompt, P patches, D values of a
patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig, AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from contextrl.pairs.images import open_image
from contextrl.verl_ext.errors import ImageTokensError, ModelError

MIN_PIXELS, MAX_PIXELS = 784, 1_003_520
"""The release's limits: from one image token of Qwen2.5-VL to 1,280 of them."""
ROW_KEY = "contextrl_row"
"""Of `VisionInputs.model_inputs`: the row's id in UTF-8, since veRL carries only tensors there."""
MAX_ASPECT = 200
"""Longer side over shorter; the processors refuse more."""


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


class QwenVisionTokenizer:
    """A `VisionTokenizer` around a stock Qwen-VL processor. Safe to share between threads."""

    def __init__(
        self,
        processor: Any,
        config: Any,
        *,
        min_pixels: int = MIN_PIXELS,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.tokenizer = processor.tokenizer
        self._images = processor.image_processor
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.image_token_id: int = config.image_token_id
        self.vision_token_ids = frozenset(
            {
                config.image_token_id,
                config.video_token_id,
                config.vision_start_token_id,
                config.vision_end_token_id,
            }
        )
        """Tokens that a reply of the model may not contain: they would ask for images."""
        around = (config.vision_start_token_id, config.image_token_id, config.vision_end_token_id)
        self.image_placeholder = "".join(self.tokenizer.convert_ids_to_tokens(list(around)))
        self._merge: int = self._images.merge_size
        self._side: int = self._images.patch_size * self._merge
        self._rope = _rope_index(config)

    @classmethod
    def from_pretrained(
        cls, path: str, *, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
    ) -> QwenVisionTokenizer:
        """Raises `ModelError` if the folder holds no processor of a Qwen-VL model."""
        try:
            processor, config = (
                AutoProcessor.from_pretrained(path),
                AutoConfig.from_pretrained(path),
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"expected a vision model's processor in {path}, found none that loads: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if not hasattr(config, "image_token_id") or not hasattr(processor, "image_processor"):
            raise ModelError(f"expected a Qwen-VL model in {path}, found {type(config).__name__}")
        return cls(processor, config, min_pixels=min_pixels, max_pixels=max_pixels)

    # What a plain tokenizer answers, this one answers the same.

    @property
    def chat_template(self) -> Any:
        return self.tokenizer.chat_template

    @property
    def eos_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_token_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        return str(self.tokenizer.decode(token_ids, **kwargs))

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        return self.tokenizer.apply_chat_template(conversation, **kwargs)

    def get_added_vocab(self) -> dict[str, int]:
        return dict(self.tokenizer.get_added_vocab())

    def prepared(self, file: bytes, *, row_id: str) -> Image.Image:
        """The image as the model will see it: RGB, sides that are whole image tokens.

        Raises `ImageError` naming the row for a file that is refused or too elongated.
        """
        image = open_image(file, row_id=row_id)
        width, height = self._size(image.size, row_id)
        if (width, height) == image.size:
            return image
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def n_tokens(self, size: tuple[int, int], *, row_id: str) -> int:
        """Tokens that an image of `size` (width, height) takes, without opening it."""
        width, height = self._size(size, row_id)
        return (width // self._side) * (height // self._side)

    def expand(
        self, token_ids: Sequence[int], images: Sequence[bytes], *, row_id: str
    ) -> tuple[list[int], VisionInputs]:
        """One token per image feature; `token_ids` holds one placeholder token per image."""
        return self.expand_prepared(
            token_ids, [self.prepared(file, row_id=row_id) for file in images], row_id=row_id
        )

    def expand_prepared(
        self, token_ids: Sequence[int], images: Sequence[Image.Image], *, row_id: str
    ) -> tuple[list[int], VisionInputs]:
        """The same for images that `prepared` returned."""
        if not images:
            ids_T = torch.tensor(token_ids)
            positions = torch.arange(len(ids_T)).expand(4, -1).clone()
            return list(token_ids), VisionInputs(row_id, positions, None, None)
        features = self._images(
            images=list(images),
            size={"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            return_tensors="pt",
        )
        grid_thw = features["image_grid_thw"]
        counts = iter((grid_thw.prod(dim=1) // self._merge**2).tolist())
        expanded: list[int] = []
        for token in token_ids:
            expanded += [token] * (next(counts) if token == self.image_token_id else 1)
        positions = self._positions(torch.tensor(expanded), grid_thw)
        return expanded, VisionInputs(row_id, positions, features["pixel_values"], grid_thw)

    def _size(self, size: tuple[int, int], row_id: str) -> tuple[int, int]:
        width, height = size
        if max(size) > MAX_ASPECT * min(size):
            raise ImageTokensError(
                f"{row_id}: expected an image with sides within {MAX_ASPECT}:1, found "
                f"{width} x {height}; crop it or drop the row"
            )
        height, width = smart_resize(
            height,
            width,
            factor=self._side,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )
        return width, height

    def _positions(self, ids_T: Tensor, grid_thw: Tensor) -> Tensor:
        kinds_T = (ids_T == self.image_token_id).int()
        seen, _ = self._rope(ids_T[None], mm_token_type_ids=kinds_T[None], image_grid_thw=grid_thw)
        return torch.cat([torch.arange(len(ids_T))[None], seen[:, 0]])


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
            row_id = bytes(inputs[ROW_KEY].tolist()).decode() if ROW_KEY in inputs else str(number)
            raise ImageTokensError(
                f"row {row_id}: expected one image token for each of its {n_features} image "
                f"features, found {n_tokens}; its prompt and its images were prepared apart"
            )


class PixelLimits(Protocol):
    """Of `CAConfig`."""

    @property
    def min_pixels(self) -> int: ...

    @property
    def max_pixels(self) -> int: ...


def tokenizer_of(model_config: Any, limits: PixelLimits) -> Any:
    """What encodes prompts for a model of veRL: its tokenizer, or for one that sees ours.

    Raises `ModelError` if such a model came without its processor.
    """
    if not is_vision(model_config.hf_config):
        return model_config.tokenizer
    if model_config.processor is None:  # veRL only warns about it
        raise ModelError(
            f"expected a processor beside the vision model {model_config.path}, found none that "
            "loads; save it there with processor.save_pretrained"
        )
    return QwenVisionTokenizer(
        model_config.processor,
        model_config.hf_config,
        min_pixels=limits.min_pixels,
        max_pixels=limits.max_pixels,
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


def _rope_index(config: Any) -> Any:
    """The model's own position rule, bound to nothing but its configuration."""
    model = MODEL_MAPPING[type(config)]
    bare = SimpleNamespace(config=config)
    if hasattr(model, "get_vision_position_ids"):
        bare.get_vision_position_ids = lambda *args, **kwargs: model.get_vision_position_ids(
            bare, *args, **kwargs
        )
    return lambda *args, **kwargs: model.get_rope_index(bare, *args, **kwargs)
