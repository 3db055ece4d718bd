"""Values of `job.vl:`, the second recipe: tiny vision models, their scenes, their warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    patch_size: int = 14
    """Pixels; one image token covers 2 x 2 patches."""
    min_pixels: int = 784
    max_pixels: int = 1_003_520
    vocab_size: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesConfig:
    """Questions and pairs drawn by program. Unused when `job.vl.train` names rows."""

    families: str = "colors,dice,patterns"
    """Of `contextrl.pairs.scenes`, by name and comma: warm-up, training, held-out images."""
    held_out_families: str = "grid,pie"
    """Only measured on: no image of theirs is trained on."""
    side: int = 56
    """Pixels of an image's side."""
    difficulty: float = 0.0
    n_warmup: int = 6000
    """Pairs of images that the warm-up asks about; no other stage sees them."""
    n_train: int = 2304
    """Questions that RL may ask."""
    n_asked: int = 768
    """Of them: those that it asks, most of them such that the policy answers right now and then."""
    n_pairs: int = 1500
    """Contrastive pairs of the CA loss."""
    n_validate: int = 180
    """Questions per split, before and after."""
    n_probe: int = 300
    """Pairs that the probe asks about, before and after, spread over all families."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VLWarmupConfig:
    """SFT of the tiny model on one-image and two-image questions, and on choices between words."""

    steps: int = 600
    one_image_steps: int = 260
    """The first of them: with one image only."""
    batch_size: int = 40
    learning_rate: float = 2e-3
    two_image_frac: float = 0.85
    """Of the examples in the later steps: about each of two images shown as the pairs show them."""
    word_choices: int = 24
    """More examples of every step: a pair's prompt with its answers where the images stand."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VLConfig:
    """Values of `job.vl:`."""

    train: str | None = None
    """Rows to train on: a parquet file, or of the hub as `ca.pairs`; null draws scenes."""
    validate: dict[str, str] = field(default_factory=dict)
    """Split name to rows; empty holds some of `train` out."""
    validate_limit: int | None = 256
    """At most this many rows a split."""
    format_prompt: str = (
        " To answer this question, you need to think step by step. Provide your thinking process "
        "in <think></think>. Provide your final answer in <answer></answer>."
    )
    """Appended to every question, its tags as the tokens they may be; the release's words for
    Qwen2.5-VL."""
    reply_prefix: str = ""
    """What every reply begins with, e.g. the `<think>` that a thinking model's template opens."""
    tiny: TinyVLConfig = field(default_factory=TinyVLConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)
    warmup: VLWarmupConfig = field(default_factory=VLWarmupConfig)
