"""Score pairs with a local Hugging Face model: what `contextrl probe --model PATH` runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from contextrl.pairs.render import EncodedPair
from contextrl.verl_ext.ca_loss import option_margin
from contextrl.verl_ext.collate import PairBatch, collate
from contextrl.verl_ext.errors import ModelError
from contextrl.verl_ext.padding import drop_padding_mask
from contextrl.verl_ext.vision import ROW_KEY, check_placeholders, is_vision
from contextrl.verl_ext.vision_tokenizer import MAX_PIXELS, MIN_PIXELS, QwenVisionTokenizer

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""One of which a saved tokenizer has."""


def load_tokenizer(path: str, *, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS) -> Any:
    """A `Tokenizer`; for a model that sees a `VisionTokenizer` with these limits for its images.

    Raises `ModelError` when the folder has no tokenizer, or one without a chat template.
    """
    if _sees(path):
        return QwenVisionTokenizer.from_pretrained(
            path, min_pixels=min_pixels, max_pixels=max_pixels
        )
    folder = Path(path)
    try:
        # transformers makes an empty tokenizer of a folder that has none.
        if folder.is_dir() and not any((folder / each).exists() for each in VOCABULARIES):
            raise FileNotFoundError(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"expected a tokenizer in {path}, found none that loads; save one there with "
            "tokenizer.save_pretrained"
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"expected a chat template in the tokenizer of {path}, found none; use a chat model"
        )
    return tokenizer


def load_model(path: str, dtype: torch.dtype | str) -> Any:
    kind = AutoModelForImageTextToText if _sees(path) else AutoModelForCausalLM
    try:
        return kind.from_pretrained(path, dtype=dtype).eval()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"expected a causal language model in {path}, found none that loads: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _sees(path: str) -> bool:
    try:
        return is_vision(AutoConfig.from_pretrained(path))
    except (OSError, ValueError) as error:
        if not Path(path).exists():  # asked once: an unreachable hub takes half a minute to say so
            raise ModelError(
                f"expected a model folder or a name that the hub knows, found {path}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        return False  # whoever loads the rest says what is missing


def _reach(config: Any) -> int | None:
    """Positions that a model of text knows; None where they are scaled or it names none."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        return None
    return getattr(text, "max_position_embeddings", None)


class HFPairScorer:
    """`PairScorer` on one device. Pairs of like length share a forward pass."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 16) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(cls, path: str, *, batch_size: int = 16) -> HFPairScorer:
        """Float32 on a CPU, bfloat16 on a GPU. Raises `ModelError`."""
        tokenizer = load_tokenizer(path)
        on_gpu = torch.cuda.is_available()
        model = load_model(path, torch.bfloat16 if on_gpu else torch.float32)
        return cls(model.to("cuda" if on_gpu else "cpu"), tokenizer, batch_size=batch_size)

    @torch.no_grad()
    def margins(self, pairs: Sequence[EncodedPair]) -> list[float]:
        """Raises `ModelError` for a pair that is longer than the model's positions reach."""
        most = _reach(self.model.config)
        longest = max((len(pair.token_ids) for pair in pairs if pair.vision is None), default=0)
        if most is not None and longest > most:
            raise ModelError(
                f"expected pairs of at most {most} tokens, as this model's max_position_embeddings "
                f"says, found {longest}; trim them with --max-tokens {most}"
            )
        by_length = sorted(range(len(pairs)), key=lambda i: len(pairs[i].token_ids))
        margins = [0.0] * len(pairs)
        for start in range(0, len(by_length), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            batch = collate([pairs[i] for i in rows]).to(self.model.device)
            ids_B_T = batch.input_ids.to_padded_tensor(0)
            last_B = batch.input_ids.offsets().diff() - 1
            attention = torch.arange(ids_B_T.shape[1], device=ids_B_T.device) <= last_B[:, None]
            inputs = {"input_ids": ids_B_T, "attention_mask": attention.long()}
            inputs |= vision_inputs(batch, self.model.config)
            drop_padding_mask(inputs)
            hidden_B_T_H = self.model.base_model(**inputs, use_cache=False).last_hidden_state
            row_B = torch.arange(len(rows), device=ids_B_T.device)
            logits_B_V = self.model.get_output_embeddings()(hidden_B_T_H[row_B, last_B])
            scored = option_margin(logits_B_V.float(), batch.correct_B_O, batch.other_B_O)
            for row, margin in zip(rows, scored.tolist(), strict=True):
                margins[row] = margin
        return margins


def vision_inputs(batch: PairBatch, config: Any) -> dict[str, Tensor]:
    """What a padded forward of transformers takes besides ids and mask; empty for a text model.

    Raises `ImageTokensError` if a pair's images and its image tokens do not fit.
    """
    if batch.seen is None:
        return {}
    check_placeholders(batch.input_ids.unbind(), batch.seen, config)
    rows = [row.T for row in batch.position_ids.unbind()]
    padded_B_T_C = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    found = {"position_ids": padded_B_T_C.permute(2, 0, 1)}
    for key in sorted({key for each in batch.seen for key in each} - {ROW_KEY}):
        found[key] = torch.cat([each[key] for each in batch.seen if key in each])
    return found
