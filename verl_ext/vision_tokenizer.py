"""THE way images reach a model: rollout, training, warm-up and probe all come through here.

An image file is opened by `pairs.images`, resized once to what the model's patches ask for, and
turned into features by the model's own stock processor. The prompt then holds exactly one token
per feature.

Shape letters as in `vision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig, AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from contextrl.pairs.images import open_image
from contextrl.verl_ext.errors import ImageTokensError, ModelError
from contextrl.verl_ext.feature_memory import FeatureMemory
from contextrl.verl_ext.vision import VisionInputs, is_vision, require_equal

MIN_PIXELS, MAX_PIXELS = 784, 1_003_520
"""The release's limits: from one image token of Qwen2.5-VL to 1,280 of them."""
MAX_ASPECT = 200
"""Longer side over shorter; the processors refuse more."""
MAX_KNOWN_POSITIONS, MAX_KNOWN_TOKENS = 1024, 1024
"""Layouts of prompts whose positions are kept, and tokens of each: 34 MB. Long ones seldom share a
layout."""


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
        self.config = config
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
        self._known = FeatureMemory(self._feature)
        self._known_positions: dict[tuple[bytes, bytes], Tensor] = {}

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

    def prepared(self, file: bytes | Image.Image, *, row_id: str) -> Image.Image:
        """The image as the model will see it: RGB, sides that are whole image tokens.

        A foreign file is opened first; an image that was drawn here is RGB already. Raises
        `ImageError` or `ImageTokensError` naming the row for what is refused or too elongated.
        """
        image = open_image(file, row_id=row_id) if isinstance(file, bytes) else file
        width, height = self._size(image.size, row_id)
        if (width, height) == image.size:
            return image
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def n_tokens(self, size: tuple[int, int], *, row_id: str) -> int:
        """Tokens that an image of `size` (width, height) takes, without opening it."""
        width, height = self._size(size, row_id)
        return (width // self._side) * (height // self._side)

    def expand(
        self, token_ids: Sequence[int], images: Sequence[bytes | Image.Image], *, row_id: str
    ) -> tuple[list[int], VisionInputs]:
        """One token per image feature; `token_ids` holds one placeholder token per image."""
        return self.expand_prepared(
            token_ids, [self.prepared(file, row_id=row_id) for file in images], row_id=row_id
        )

    def expand_prepared(
        self, token_ids: Sequence[int], images: Sequence[Image.Image], *, row_id: str
    ) -> tuple[list[int], VisionInputs]:
        """The same for images that `prepared` returned."""
        pixel_values, grid_thw = self._features(images)
        counts = iter([] if grid_thw is None else self._counts(grid_thw))
        expanded: list[int] = []
        for token in token_ids:
            expanded += [token] * (next(counts) if token == self.image_token_id else 1)
        positions = self._positions(torch.tensor(expanded), grid_thw)
        return expanded, VisionInputs(row_id, positions, pixel_values, grid_thw)

    def inputs_of(
        self, expanded_ids: Sequence[int], images: Sequence[Image.Image], *, row_id: str
    ) -> VisionInputs:
        """For a server that got a whole prompt and its prepared images.

        Raises `ImageTokensError` unless the prompt holds one token for each feature.
        """
        pixel_values, grid_thw = self._features(images)
        ids_T = torch.tensor(expanded_ids)
        n_features = 0 if grid_thw is None else sum(self._counts(grid_thw))
        require_equal(int((ids_T == self.image_token_id).sum()), n_features, row_id)
        return VisionInputs(row_id, self._positions(ids_T, grid_thw), pixel_values, grid_thw)

    def _features(self, images: Sequence[Image.Image]) -> tuple[Tensor | None, Tensor | None]:
        if not images:
            return None, None
        pixel_values, grids = zip(*map(self._known.of, images), strict=True)
        return torch.cat(pixel_values), torch.cat(grids)

    def _feature(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        found = self._images(images=[image], do_resize=False, return_tensors="pt")  # `prepared` did
        return found["pixel_values"], found["image_grid_thw"]

    def _counts(self, grid_thw: Tensor) -> list[int]:
        """Tokens of each image."""
        return (grid_thw.prod(dim=1) // self._merge**2).tolist()

    def _size(self, size: tuple[int, int], row_id: str) -> tuple[int, int]:
        width, height = size
        _require_aspect(size, f"{width} x {height}", row_id)
        height, width = smart_resize(
            height,
            width,
            factor=self._side,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )
        # A server prepares what it gets once more, and whole tokens are a coarse grid.
        _require_aspect((width, height), f"{size[0]} x {size[1]} as {width} x {height}", row_id)
        return width, height

    def _positions(self, ids_T: Tensor, grid_thw: Tensor | None) -> Tensor:
        """[4, T]."""
        if grid_thw is None:
            return torch.arange(len(ids_T)).expand(4, -1).clone()
        is_image_T = ids_T == self.image_token_id
        kinds_T = is_image_T.int()
        # All that the model's rule looks at, and prompts of one kind often share it.
        key = (is_image_T.numpy().tobytes(), grid_thw.numpy().tobytes())
        if (known := self._known_positions.get(key)) is not None:
            return known
        seen, _ = self._rope(ids_T[None], mm_token_type_ids=kinds_T[None], image_grid_thw=grid_thw)
        positions = torch.cat([torch.arange(len(ids_T))[None], seen[:, 0]])
        if len(ids_T) <= MAX_KNOWN_TOKENS and len(self._known_positions) < MAX_KNOWN_POSITIONS:
            self._known_positions[key] = positions
        return positions


def _require_aspect(size: tuple[int, int], found: str, row_id: str) -> None:
    if max(size) > MAX_ASPECT * min(size):
        raise ImageTokensError(
            f"{row_id}: expected an image with sides within {MAX_ASPECT}:1, found {found}; crop it "
            "or drop the row"
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


def _rope_index(config: Any) -> Any:
    """The model's own position rule, bound to nothing but its configuration."""
    model = MODEL_MAPPING[type(config)]
    bare = SimpleNamespace(config=config)
    if hasattr(model, "get_vision_position_ids"):
        bare.get_vision_position_ids = lambda *args, **kwargs: model.get_vision_position_ids(
            bare, *args, **kwargs
        )
    return lambda *args, **kwargs: model.get_rope_index(bare, *args, **kwargs)
