"""Values of `job.vl:`, the second recipe: tiny vision models, their scenes, their warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TinyVL(StrEnum):
    QWEN2_5 = "qwen2.5-vl"
    QWEN3 = "qwen3-vl"


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyVLConfig:
    """The tiny model. Unused when `actor_rollout_ref.model.path` names a real one."""

    kind: TinyVL = TinyVL.QWEN2_5
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    vision_hidden_size: int = 64
    vision_layers: int = 2
    vision_heads: int = 4
    patch_size: int = 7
    """Pixels; one image token covers 2 x 2 patches."""
    min_pixels: int = 784
    max_pixels: int = 1_003_520
    vocab_size: int = 1024
    seed: int = 0
