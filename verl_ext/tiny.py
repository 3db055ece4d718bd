"""The tiny policy: a Qwen3 of about a million parameters and a tokenizer trained on one package."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from contextrl.pairs.masking import MASK
from contextrl.verl_ext.settings import WarmupConfig

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, as Qwen's models use it, without their thinking blocks."""


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    control: Sequence[str] = (),
    words: Sequence[str] = (MASK,),
) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text encodes. Digits stay single, so line numbers are spelled out.

    `control` names further control tokens; `words` must cost one token each.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END, *control],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *[word for word in words for _ in range(200)]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, *control],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(
    config: WarmupConfig, tokenizer: PreTrainedTokenizerFast, *, max_context_tokens: int, seed: int
) -> Qwen3ForCausalLM:
    """Randomly initialised from `seed`; embeddings tied, as in the small Qwen3 models."""
    torch.manual_seed(seed)
    end_id = tokenizer.convert_tokens_to_ids(END)
    pad_id = tokenizer.convert_tokens_to_ids(PAD)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=3 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.hidden_size // config.heads,
            max_position_embeddings=max_context_tokens,
            rope_theta=1e6,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=end_id,
            pad_token_id=pad_id,
        )
    )
    if config.kv_heads == config.heads:
        for layer in model.model.layers:
            match_like_tokens(layer.self_attn)
    model.generation_config = GenerationConfig(eos_token_id=end_id, pad_token_id=pad_id)
    return model


@torch.no_grad()
def match_like_tokens(attention: Any) -> None:
    """In the first half of the heads keys are queries: like tokens attend to each other, which is
    half of a lookup.

    Not in all of them. A head whose keys are its queries looks at its own position first of all;
    if every head did, nothing would tell a token where it stands, and whether that is ever learned
    was a matter of luck (docs/learning.md).
    """
    for of_keys, of_queries in zip(
        attention.k_proj.parameters(), attention.q_proj.parameters(), strict=True
    ):
        half = len(of_keys) // 2
        of_keys[:half] = of_queries[:half]


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Hugging Face layout: `AutoModelForCausalLM.from_pretrained(folder)` loads it.

    Raises `OSError` if it cannot be written.
    """
    with writing(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The libraries that write models raise errors of their own; those of a disk become `OSError`,
    with the number that safetensors leaves in its text.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(folder)) from error
