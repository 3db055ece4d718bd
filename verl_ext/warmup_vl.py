"""Warm-up of a tiny vision model: SFT on questions about one image, about each of two, and choices
between two words.

The second kind ties a letter to the image shown under it, and the third is a pair's prompt with
words where the images stand: which image supports an answer is left to the CA loss, which without
them stays at chance for a hundred updates and more. Two images come once one is seen: a model that
does not see yet learns nothing from two that it does not learn from one, and slower.

Shape letters: B examples, T tokens, H hidden size, V vocabulary, N tokens of the replies.
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
from contextrl.pairs.render_images import CLOSING, ImagePairStyle
from contextrl.pairs.scenes import ScenePair
from contextrl.verl_ext.collate import collate
from contextrl.verl_ext.image_attention import attend_by_length
from contextrl.verl_ext.muon import Muon
from contextrl.verl_ext.padding import drop_padding_mask
from contextrl.verl_ext.quick_norms import quicken_norms
from contextrl.verl_ext.scorer_hf import vision_inputs
from contextrl.verl_ext.settings_vl import VLWarmupConfig
from contextrl.verl_ext.vision import extended

MUON_LR, WEIGHT_DECAY = 0.02, 0.01
RAMP = 30
"""Steps until the learning rate is reached."""

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Turn:
    asked: str
    """The first turn's shows the images."""
    reply: str
    closing: str = ""
    """Words of ours after `asked`, see `encode.prompt_ids`."""


@dataclass(frozen=True, slots=True)
class Example:
    images: tuple[Image.Image, ...]
    turns: tuple[Turn, ...]


def one_image(pair: ScenePair, positive: bool, format_prompt: str) -> Example:
    image, answer = _side(pair, positive)
    turn = Turn(f"{IMAGE_MARK}{pair.question}", reply_to(answer), format_prompt)
    return Example((image,), (turn,))


def two_images(pair: ScenePair, positive: bool, swapped: bool, format_prompt: str) -> Example:
    """Both images as in a pair's prompt; the question asked of one of them, then of the other."""
    images = (pair.image_positive, pair.image_negative)
    turns = []
    for of_positive in (positive, not positive):
        letter = "A" if of_positive != swapped else "B"
        _, answer = _side(pair, of_positive)
        reply = reply_to(answer, thought=letter)
        turns.append(Turn(f"{letter}: {pair.question}", reply, format_prompt))
    options = "".join(f"{letter}:{IMAGE_MARK}\n" for letter in "AB")
    turns[0] = replace(turns[0], asked=options + turns[0].asked)
    return Example(images[::-1] if swapped else images, tuple(turns))


def two_words(pair: ScenePair, positive: bool, swapped: bool, style: ImagePairStyle) -> Example:
    """A pair's prompt with its two answers where the images stand, and the letter of one."""
    words = (pair.answer_positive, pair.answer_negative)
    options = "".join(
        style.option.format(letter=letter, image=word)
        for letter, word in zip("AB", words[::-1] if swapped else words, strict=True)
    )
    answer = words[0] if positive else words[1]
    asked = style.opening + options + style.ask.format(question=pair.question, answer=answer)
    return Example((), (Turn(asked + CLOSING, "A" if positive != swapped else "B"),))


def reply_to(answer: str, *, thought: str = "") -> str:
    """A tiny model has nothing to think; the format asks for a thought all the same.

    Of two images it says which letter it was asked about. Else no letter would ever have been said,
    all of them would have one and the same logit, and the CA loss would begin at a saddle.
    """
    return f"<think>{thought}</think><answer>{answer}</answer>"


def warm_up(
    model: Any,
    tokenizer: Any,
    draw: Callable[[random.Random], ScenePair],
    config: VLWarmupConfig,
    *,
    style: ImagePairStyle,
    format_prompt: str,
    progress: Progress = lambda what, step: None,
) -> float:
    """SFT in place; the mean loss of the last steps. `draw` gives the next scene."""
    rng = random.Random(config.seed)
    quicken_norms(model)
    attend_by_length(model)
    optimizers = _optimizers(model, config)
    losses: list[float] = []
    model.train()
    for step in range(1, config.steps + 1):
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(step, config.steps)
        two_image_frac = config.two_image_frac if step > config.one_image_steps else 0.0
        examples = [
            _example(draw(rng), rng, two_image_frac, format_prompt)
            for _ in range(config.batch_size)
        ]
        examples += [
            two_words(draw(rng), rng.random() < 0.5, rng.random() < 0.5, style)
            for _ in range(config.word_choices)
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
    """Mean cross-entropy of the replies' tokens, the ends of the turns included."""
    logits_N_V, said_N, _ = _said(model, tokenizer, examples)
    return torch.nn.functional.cross_entropy(logits_N_V, said_N)


@torch.no_grad()
def share_right(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float:
    """Of the examples: every token of their replies is the likeliest one after those before it."""
    logits_N_V, said_N, row_N = _said(model, tokenizer, examples)
    wrong_N = logits_N_V.argmax(dim=-1) != said_N
    return 1 - len(row_N[wrong_N].unique()) / len(examples)


@torch.no_grad()
def chances_of_replies(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[float]:
    """Of each example: how likely its replies are, word for word, when sampled at temperature 1."""
    logits_N_V, said_N, row_N = _said(model, tokenizer, examples)
    logprob_N = -torch.nn.functional.cross_entropy(logits_N_V, said_N, reduction="none")
    return torch.zeros(len(examples)).index_add(0, row_N, logprob_N).exp().tolist()


def _said(model: Any, tokenizer: Any, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token of a reply: the logits it was chosen by, itself, the number of its example."""
    encoded = [_encoded(example, tokenizer, number) for number, example in enumerate(examples)]
    batch = collate([row for row, _ in encoded])
    said_B_T = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(said) for _, said in encoded], batch_first=True
    )
    ids_B_T = batch.input_ids.to_padded_tensor(tokenizer.pad_token_id)
    lengths_B = batch.input_ids.offsets().diff()
    at_T = torch.arange(ids_B_T.shape[1])
    attention_B_T = at_T < lengths_B[:, None]
    # In float32: at these sizes bfloat16 took 0.75 s a batch where float32 took 0.55.
    inputs = {"input_ids": ids_B_T, "attention_mask": attention_B_T.long()}
    inputs |= vision_inputs(batch, model.config)
    drop_padding_mask(inputs)
    hidden_B_T_H = model.model(**inputs, use_cache=False).last_hidden_state
    next_said_B_T = said_B_T[:, 1:]
    logits_N_V = model.lm_head(hidden_B_T_H[:, :-1][next_said_B_T])
    return logits_N_V, ids_B_T[:, 1:][next_said_B_T], next_said_B_T.nonzero()[:, 0]


def _encoded(example: Example, tokenizer: Any, number: int) -> tuple[EncodedPair, list[bool]]:
    """The whole conversation, and which of its tokens are the model's."""
    first = example.turns[0]
    prompt_ids, vision = encode_prompt(
        first.asked,
        tokenizer,
        closing=first.closing,
        images=example.images,
        row_id=f"example {number}",
    )
    token_ids, said = list(prompt_ids), [False] * len(prompt_ids)
    for turn_number, turn in enumerate(example.turns):
        if turn_number > 0:
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": turn.asked + turn.closing}],
                tokenize=False,
                add_generation_prompt=True,
            )
            asked_ids = tokenizer.encode(f"\n{asked}", add_special_tokens=False)
            token_ids += asked_ids
            said += [False] * len(asked_ids)
        reply = tokenizer.encode(turn.reply, add_special_tokens=False)
        token_ids += [*reply, tokenizer.eos_token_id]
        said += [True] * (len(reply) + 1)
    positions = extended(vision.positions, len(token_ids) - len(prompt_ids))
    vision = replace(vision, positions=positions)
    return EncodedPair(vision.row_id, tuple(token_ids), (0,), (0,), vision), said


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
    muon = Muon(matrices, lr=MUON_LR, weight_decay=WEIGHT_DECAY)
    adam = torch.optim.AdamW(
        rest, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    return [(muon, MUON_LR), (adam, config.learning_rate)]


def _schedule(step: int, steps: int) -> float:
    """Linear ramp, then cosine to a twentieth."""
    return min(1.0, step / RAMP) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
