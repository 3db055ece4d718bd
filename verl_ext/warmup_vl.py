"""Warm-up of a tiny vision model: SFT on questions about one image, and about one of two.

The second kind ties a letter to the image shown under it, which is what choosing between two images
takes; which image supports an answer is left to the CA loss. Images are drawn as they are needed,
so no image is seen twice.

Shape letters: B questions, T tokens, N scored positions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from contextrl.pairs.encode import IMAGE_MARK, EncodedPair, encode_prompt
from contextrl.pairs.scenes import ScenePair
from contextrl.verl_ext.collate import collate
from contextrl.verl_ext.scorer_hf import vision_inputs
from contextrl.verl_ext.settings_vl import VLWarmupConfig
from contextrl.verl_ext.vision import extended

THOUGHT = "I look."
"""A tiny model has nothing to think; the format asks for a thought all the same."""
MUON_LR, WEIGHT_DECAY = 0.02, 0.01
RAMP = 30
"""Steps until the learning rate is reached."""

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Example:
    text: str
    images: tuple[Image.Image, ...]
    reply: str


def one_image(pair: ScenePair, positive: bool, format_prompt: str) -> Example:
    image, answer = _side(pair, positive)
    return Example(f"{IMAGE_MARK}{pair.question}{format_prompt}", (image,), reply_to(answer))


def two_images(pair: ScenePair, positive: bool, swapped: bool, format_prompt: str) -> Example:
    """Both images as in a pair's prompt, and the question asked of one of them."""
    images = (pair.image_positive, pair.image_negative)
    _, answer = _side(pair, positive)
    letter = "A" if positive != swapped else "B"
    options = "".join(f"{each}:{IMAGE_MARK}\n" for each in "AB")
    text = f"{options}{letter}: {pair.question}{format_prompt}"
    return Example(text, images[::-1] if swapped else images, reply_to(answer))


def reply_to(answer: str) -> str:
    return f"<think>{THOUGHT}</think><answer>{answer}</answer>"


def warm_up(
    model: Any,
    tokenizer: Any,
    draw: Callable[[random.Random], ScenePair],
    config: VLWarmupConfig,
    *,
    format_prompt: str,
    progress: Progress = lambda what, step: None,
) -> float:
    """SFT in place; the mean loss of the last steps. `draw` gives the next scene."""
    rng = random.Random(config.seed)
    optimizers = _optimizers(model, config)
    losses: list[float] = []
    model.train()
    for step in range(1, config.steps + 1):
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(step, config.steps)
        examples = [
            _example(draw(rng), rng, config.two_image_frac, format_prompt)
            for _ in range(config.batch_size)
        ]
        loss = sft_loss(model, tokenizer, examples)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        progress(f"questions about images, loss {losses[-1]:.3f}", step)
    model.eval()
    recent = losses[-20:]
    return sum(recent) / len(recent)


def sft_loss(model: Any, tokenizer: Any, examples: Sequence[Example]) -> Tensor:
    """Mean cross-entropy of the replies' tokens, the end of the turn included."""
    rows, reply_lengths = [], []
    for number, example in enumerate(examples):
        token_ids, vision = encode_prompt(
            example.text, tokenizer, images=example.images, row_id=f"example {number}"
        )
        reply = tokenizer.encode(example.reply, add_special_tokens=False)
        reply.append(tokenizer.eos_token_id)
        vision = replace(vision, positions=extended(vision.positions, len(reply)))
        rows.append(EncodedPair(vision.row_id, (*token_ids, *reply), (0,), (0,), vision))
        reply_lengths.append(len(reply))
    batch = collate(rows)
    ids_B_T = batch.input_ids.to_padded_tensor(tokenizer.pad_token_id)
    lengths_B = batch.input_ids.offsets().diff()
    at_T = torch.arange(ids_B_T.shape[1])
    attention_B_T = at_T < lengths_B[:, None]
    # In float32: at these sizes bfloat16 took 0.75 s a batch where float32 took 0.55.
    hidden_B_T_H = model.model(
        input_ids=ids_B_T,
        attention_mask=attention_B_T.long(),
        use_cache=False,
        **vision_inputs(batch, model.config),
    ).last_hidden_state
    said_B_T = attention_B_T & (at_T >= (lengths_B - torch.tensor(reply_lengths))[:, None])
    logits_N_V = model.lm_head(hidden_B_T_H[:, :-1][said_B_T[:, 1:]])
    return torch.nn.functional.cross_entropy(logits_N_V, ids_B_T[:, 1:][said_B_T[:, 1:]])


def _example(
    pair: ScenePair, rng: random.Random, two_image_frac: float, format_prompt: str
) -> Example:
    positive = rng.random() < 0.5
    if rng.random() < two_image_frac:
        return two_images(pair, positive, rng.random() < 0.5, format_prompt)
    return one_image(pair, positive, format_prompt)


def _side(pair: ScenePair, positive: bool) -> tuple[Image.Image, str]:
    if positive:
        return pair.image_positive, pair.answer_positive
    return pair.image_negative, pair.answer_negative


def _optimizers(model: Any, config: VLWarmupConfig) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon on the hidden matrices, AdamW on the rest; each with its learning rate."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if hidden else rest).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=MUON_LR, weight_decay=WEIGHT_DECAY, adjust_lr_fn="original"
    )
    adam = torch.optim.AdamW(
        rest, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    return [(muon, MUON_LR), (adam, config.learning_rate)]


def _schedule(step: int, steps: int) -> float:
    """Linear ramp, then cosine to a twentieth."""
    return min(1.0, step / RAMP) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
