"""Warm-up of the tiny policy: reading drills first, then drills and scripted runs by turns.

Minutes on two cores; then it acts well enough for RL to mean something, and can look a line up in
two contexts. By turns, because what was learned from drills alone is gone after a few hundred steps
of SFT. Which of two real contexts lies behind a patch is left to the CA loss.

Shape letters: B sequences, T tokens, N scored positions.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from contextrl.verl_ext.ca_loss import ca_loss
from contextrl.verl_ext.curriculum import Curriculum
from contextrl.verl_ext.drills import Drill, DrillMaker
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.muon import Muon
from contextrl.verl_ext.quick_norms import quicken_norms
from contextrl.verl_ext.settings import WarmupConfig
from contextrl.verl_ext.sft_data import SFTSequence

logger = logging.getLogger(__name__)

RISE_STEPS = 100
MUON_LR = 0.02
"""Muon for matrices reached the same loss in half of AdamW's steps on this model."""
ATTEMPTS, SEED_STRIDE = 5, 1000
BUCKETS = 16
"""Batches whose sequences are sorted by length together, to pad less."""
NO_CLIP = 1e4
# oneDNN plans each new shape, which takes longer than the step itself: few shapes, so.
ROWS_UNIT, TOKENS_UNIT, SCORED_UNIT = 8, 64, 128
DECAY_FRAC = 0.4
"""The last share of the steps, over which the learning rate falls."""

FLOAT32_ATTENTION = "contextrl_float32"

BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names of what multiplies bfloat16 in hardware, as `torch.cpu.get_capabilities` has them."""

Progress = Callable[[str, int, int], None]
"""What, step, of how many."""


def _float32_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, *, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Causal attention over right-padded rows. On a CPU its backward pass is three times as fast
    in float32 as in bfloat16; a step gains a fifth."""
    with torch.autocast("cpu", enabled=False):
        out = torch.nn.functional.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return out.transpose(1, 2).contiguous().to(query.dtype), None


ALL_ATTENTION_FUNCTIONS.register(FLOAT32_ATTENTION, _float32_attention)


def warm_up(
    build: Callable[[int], Qwen3ForCausalLM],
    draw_run: Callable[[], SFTSequence],
    maker: DrillMaker,
    config: WarmupConfig,
    *,
    progress: Progress = lambda what, step, steps: None,
) -> Qwen3ForCausalLM:
    """A model of `build(seed)`, trained: the basic drills alone, then `config.steps` of both.

    When the basic drills take off is a matter of luck, a hundred steps or never: where they did not
    within `config.basic_steps` another initialisation is tried. Raises `ConfigError` after
    `ATTEMPTS` of them.
    """
    for attempt in range(ATTEMPTS):
        seed = config.seed + SEED_STRIDE * attempt
        model = build(seed)
        trainer = _Trainer(model, maker, config, seed)
        if trainer.basics(progress):
            break
        logger.info("the drills did not take off from initialisation %d", seed)
    else:
        raise ConfigError(
            f"expected the reading drills to take off within {config.basic_steps} steps, "
            f"{ATTEMPTS} initialisations did not; set job.warmup.basic_steps or job.warmup.seed"
        )
    trainer.by_turns(_batches(draw_run, config, seed), progress)
    model.set_attn_implementation("sdpa")
    model.eval()
    return model


class _Trainer:
    """A model, its optimizers, and how far its drills have come."""

    def __init__(
        self, model: Qwen3ForCausalLM, maker: DrillMaker, config: WarmupConfig, seed: int
    ) -> None:
        model.set_attn_implementation(FLOAT32_ATTENTION)
        quicken_norms(model)
        self._model, self._maker, self._config = model.train(), maker, config
        self._rng = random.Random(seed)
        self._curriculum = Curriculum(maker, patience=config.drill_patience, seed=seed)
        self._optimizers = _optimizers(model, config)
        self._sft_loss = 0.0

    def basics(self, progress: Progress) -> bool:
        """Whether the basic drills were passed."""
        steps = self._config.basic_steps
        for step in range(1, steps + 1):
            if self._curriculum.basics_passed:
                break
            _set_rate(self._optimizers, min(1.0, step / RISE_STEPS))
            self._drill()
            progress(self._state(), step, steps)
        return self._curriculum.basics_passed

    def by_turns(self, batches: Iterator[list[SFTSequence]], progress: Progress) -> None:
        """Drills, fewer and fewer of them, and runs."""
        config = self._config
        for step in range(1, config.steps + 1):
            left = (config.steps - step) / config.steps
            _set_rate(self._optimizers, min(1.0, 0.05 + left / DECAY_FRAC))
            falls_by = config.drill_frac - config.last_drill_frac
            if self._rng.random() < config.last_drill_frac + left * falls_by:
                self._drill()
            else:
                loss = sft_batch_loss(self._model, next(batches))
                self._sft_loss = float(loss.detach())
                _step(self._model, self._optimizers, loss)
            progress(self._state(), step, config.steps)

    def _drill(self) -> None:
        stage = self._curriculum.draw()
        batch = drill_batch(self._maker, stage, self._config)
        loss, accuracy = drill_loss(self._model, batch, self._maker.letter_ids)
        _step(self._model, self._optimizers, loss)
        self._curriculum.note(stage, accuracy)

    def _state(self) -> str:
        at = f"drill {self._curriculum.at + 1}/{len(self._maker.stages)}"
        right = f"({self._curriculum.name}) right {self._curriculum.accuracy:.0%}"
        return f"{at} {right}, SFT loss {self._sft_loss:.3f}"


def drill_loss(
    model: Qwen3ForCausalLM, drills: Sequence[Drill], letter_ids: tuple[int, int]
) -> tuple[Tensor, float]:
    """The CA loss, without a clip, at every scored position; and the share that was right."""
    rows_N = torch.tensor([row for row, drill in enumerate(drills) for _ in drill.positions])
    at_N = torch.tensor([position for drill in drills for position in drill.positions])
    second_N = torch.tensor([second for drill in drills for second in drill.second])
    hidden_N_H = _hidden_at(model, [drill.token_ids for drill in drills], rows_N, at_N)
    with _quicker_dtype():
        letters_N_2 = hidden_N_H @ model.lm_head.weight[list(letter_ids)].T
    letters_N_2 = letters_N_2[: len(rows_N)].float()
    a_minus_b_N = letters_N_2[:, 0] - letters_N_2[:, 1]
    result = ca_loss(torch.where(second_N, -a_minus_b_N, a_minus_b_N), clip=NO_CLIP)
    return result.loss, float(result.metrics["ca/accuracy"])


def drill_batch(maker: DrillMaker, stage: int, config: WarmupConfig) -> list[Drill]:
    """Drills of one stage, as many as `config.drill_tokens` hold once they are padded."""
    make = maker.stages[stage][1]
    drills: list[Drill] = []
    rows = ROWS_UNIT
    while len(drills) < rows:
        drills += [make() for _ in range(rows - len(drills))]
        width = _up(max(len(drill.token_ids) for drill in drills), TOKENS_UNIT)
        rows = max(ROWS_UNIT, config.drill_tokens // width // ROWS_UNIT * ROWS_UNIT)
    return drills[:rows]


def sft_batch_loss(model: Qwen3ForCausalLM, batch: Sequence[SFTSequence]) -> Tensor:
    """Weighted cross-entropy; logits only where a weight is above zero."""
    scored = [
        (row, position)
        for row, sequence in enumerate(batch)
        for position, weight in enumerate(sequence.weights[1:])
        if weight > 0
    ]
    rows_N, at_N = torch.tensor(scored).T
    hidden_N_H = _hidden_at(model, [sequence.token_ids for sequence in batch], rows_N, at_N)
    with _quicker_dtype():
        logits_N_V = model.lm_head(hidden_N_H)[: len(scored)]
    next_N = torch.tensor([batch[row].token_ids[at + 1] for row, at in scored])
    weight_N = torch.tensor([batch[row].weights[at + 1] for row, at in scored])
    loss_N = torch.nn.functional.cross_entropy(logits_N_V.float(), next_N, reduction="none")
    return (loss_N * weight_N).sum() / weight_N.sum()


def _hidden_at(
    model: Qwen3ForCausalLM, sequences: Sequence[Sequence[int]], rows_N: Tensor, at_N: Tensor
) -> Tensor:
    """Last hidden states at the scored positions, and after them some rows to leave out.

    Right-padded: a causal model never sees the padding.
    """
    width = _up(max(len(sequence) for sequence in sequences), TOKENS_UNIT)
    ids_B_T = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids_B_T[row, : len(sequence)] = torch.tensor(sequence)
    unused = torch.zeros(_up(len(rows_N), SCORED_UNIT) - len(rows_N), dtype=torch.long)
    with _quicker_dtype():
        hidden_B_T_H = model.model(input_ids=ids_B_T, use_cache=False).last_hidden_state
    hidden_N_H: Tensor = hidden_B_T_H[torch.cat([rows_N, unused]), torch.cat([at_N, unused])]
    return hidden_N_H


def _batches(
    draw_run: Callable[[], SFTSequence], config: WarmupConfig, seed: int
) -> Iterator[list[SFTSequence]]:
    """Endless batches of like lengths."""
    size, rng = config.batch_size, random.Random(seed)
    while True:
        drawn = [draw_run() for _ in range(BUCKETS * size)]
        drawn.sort(key=lambda sequence: len(sequence.token_ids))
        group = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        rng.shuffle(group)
        yield from group


def _quicker_dtype() -> AbstractContextManager[Any]:
    """bfloat16 where the processor multiplies it in hardware. Elsewhere it is emulated: a batch of
    drills took 1.5 s in bfloat16 and 0.74 in float32 on two cores with AVX-512 alone.
    """
    has = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not say
    quick = any(has.get(unit, False) for unit in BFLOAT16_UNITS)
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=quick)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


Optimizers = list[tuple[torch.optim.Optimizer, float]]
"""Each with its base learning rate."""


def _set_rate(optimizers: Optimizers, factor: float) -> None:
    for optimizer, base_lr in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = base_lr * factor


def _step(model: Qwen3ForCausalLM, optimizers: Optimizers, loss: Tensor) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, _ in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _optimizers(model: Qwen3ForCausalLM, config: WarmupConfig) -> Optimizers:
    """Muon on the hidden matrices, AdamW on embeddings and norms; no weight decay."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    muon = Muon(matrices, lr=MUON_LR)
    adam = torch.optim.AdamW(rest, lr=config.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    return [(muon, MUON_LR), (adam, config.learning_rate)]
