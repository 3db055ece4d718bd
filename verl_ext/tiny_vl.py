"""Tiny Qwen2.5-VL and Qwen3-VL, built offline: real architectures, real processors, about a
million parameters, and patches small enough for images of 56 to 112 pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from contextrl.verl_ext.settings_vl import TinyVL, TinyVLConfig
from contextrl.verl_ext.tiny import END, PAD, match_like_tokens, train_tokenizer, writing

MERGE = 2
"""Patches per side of one image token."""
VISION_TOKENS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
THOUGHT_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
"""One token each, as the first two are in Qwen3's vocabulary: a reply of a tiny model is short."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with image placeholders, as in the released Qwen-VL models, without a system prompt."""


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(
        texts,
        vocab_size,
        control=tuple(VISION_TOKENS.values()),
        words=("A", "B", "user", "assistant"),
    )
    tokenizer.add_tokens(list(THOUGHT_TOKENS))
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_processor(config: TinyVLConfig, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The stock processor class, so that `AutoProcessor` loads it back."""
    images = Qwen2VLImageProcessor(
        patch_size=config.patch_size,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels},
    )
    if config.kind is TinyVL.QWEN2_5:
        kind, video = Qwen2_5_VLProcessor, Qwen2VLVideoProcessor
    else:
        kind, video = Qwen3VLProcessor, Qwen3VLVideoProcessor
    return kind(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=video(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(config: TinyVLConfig, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Randomly initialised from `config.seed`."""
    torch.manual_seed(config.seed)
    end_id, pad_id = (tokenizer.convert_tokens_to_ids(token) for token in (END, PAD))
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in VISION_TOKENS.items()}
    head = config.hidden_size // config.heads
    # The rotary dimensions of time, height and width: half a head in all.
    sections = [head // 2 - 2 * (head // 6), head // 6, head // 6]
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "mrope_section": sections,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "intermediate_size": 3 * config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "max_position_embeddings": 4096,
        "pad_token_id": pad_id,
        "eos_token_id": end_id,
        "bos_token_id": None,
        "tie_word_embeddings": False,
        "rope_parameters": rope,
    }
    vision = {
        "depth": config.vision_layers,
        "hidden_size": config.vision_hidden_size,
        "intermediate_size": 2 * config.vision_hidden_size,
        "num_heads": config.vision_heads,
        "out_hidden_size": config.hidden_size,
        "patch_size": config.patch_size,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    }
    if config.kind is TinyVL.QWEN2_5:
        vision |= {
            # One window holds a whole image of the scenes: attention runs window by window.
            "window_size": 16 * MERGE * config.patch_size,
            "fullatt_block_indexes": list(range(1, config.vision_layers, 2)),
        }
        model: Any = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config=text, vision_config=vision, tie_word_embeddings=False, **ids
            )
        )
    else:
        text["head_dim"] = head
        rope["mrope_interleaved"] = True
        vision |= {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]}
        model = Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
        )
    for layer in model.model.language_model.layers:
        match_like_tokens(layer.self_attn)
    model.generation_config = GenerationConfig(eos_token_id=end_id, pad_token_id=pad_id)
    return model


def save_vl(model: Any, processor: Any, folder: Path) -> None:
    """Hugging Face layout: `AutoModelForImageTextToText` and `AutoProcessor` load it.

    Raises `OSError` if it cannot be written.
    """
    with writing(folder):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
