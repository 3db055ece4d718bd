"""Warm-up of the tiny policy: reading drills, then SFT on scripted runs with some drills kept in.

Minutes on two cores; then it acts well enough for RL to mean something, and can look a line up in
two contexts. Which of two real contexts lies behind a patch is left to the CA loss.

Shape letters: B sequences, T tokens, N scored positions.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from contextrl.verl_ext.ca_loss import ca_loss
from contextrl.verl_ext.drills import Drill, DrillMaker
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import WarmupConfig
from contextrl.verl_ext.sft_data import SFTSequence

logger = logging.getLogger(__name__)

WARMUP_STEPS = 30
MUON_LR = 0.02
"""Muon for matrices reached the same loss in half of AdamW's steps on this model."""
WEIGHT_DECAY = 0.05
BUCKETS = 16
"""Batches whose sequences are sorted by length together, to pad less."""
PASSED = 0.93
"""Accuracy over the last `WINDOW` batches of a stage that promotes to the next."""
WINDOW, LEAST_STEPS = 6, 8
EARLIER_FRAC = 0.25
"""Of the drill batches: from one of the stages before, so that they are kept."""
NO_CLIP = 1e4
SHAPE_UNIT = 32

Progress = Callable[[str, int], None]


def read_drills(
    model: Qwen3ForCausalLM, maker: DrillMaker, config: WarmupConfig, *, progress: Progress
) -> int:
    """Train in place, stage by stage; how many stages were passed. `progress` gets (what, step).

    A stage that `config.drill_patience` steps did not bring to `PASSED` is left for the next: the
    later ones teach it too. Not so the first `maker.n_basic`, without which nothing later is
    learned.
    """
    rng = random.Random(config.seed)
    optimizers = _optimizers(model, config, weight_decay=0.0)
    at, entered, passed = 0, 0, 0
    recent: deque[float] = deque(maxlen=WINDOW)
    model.train()
    for step in range(1, config.drill_steps + 1):
        left = (config.drill_steps - step) / config.drill_steps
        _set_rate(optimizers, min(1.0, step / WARMUP_STEPS) * min(1.0, 0.05 + left / 0.3))
        stage = at if at == 0 or rng.random() >= EARLIER_FRAC else rng.randrange(max(0, at - 5), at)
        loss, accuracy = drill_loss(model, _drill_batch(maker, stage, config), maker.letter_ids)
        _step(model, optimizers, loss)
        if stage == at:
            recent.append(accuracy)
        name = maker.stages[at][0]
        progress(f"drill {at + 1}/{len(maker.stages)} ({name}), right {accuracy:.0%}", step)
        learned = len(recent) == WINDOW and sum(recent) / WINDOW > PASSED
        tried = step - entered
        enough = at >= maker.n_basic and tried >= config.drill_patience
        if at < len(maker.stages) - 1 and ((learned and tried >= LEAST_STEPS) or enough):
            logger.info("drill '%s' %s at step %d", name, "passed" if learned else "left", step)
            at, entered, passed = at + 1, step, passed + learned
            recent.clear()
    model.eval()
    return passed


def supervise(
    model: Qwen3ForCausalLM,
    runs: Sequence[SFTSequence],
    maker: DrillMaker,
    config: WarmupConfig,
    *,
    progress: Progress = lambda what, step: None,
) -> float:
    """SFT in place for `config.steps`, a `config.drill_frac` of them on drills; the last loss."""
    if not runs:
        raise ConfigError("expected scripted runs to warm up on, found none; check job.tasks")
    rng = random.Random(config.seed)
    optimizers = _optimizers(model, config, weight_decay=WEIGHT_DECAY)
    batches = _batches(runs, config, rng)
    loss_value = math.nan
    hardest = range(len(maker.stages) // 2, len(maker.stages))
    model.train()
    for step in range(1, config.steps + 1):
        _set_rate(optimizers, _schedule(step, config.steps))
        if rng.random() < config.drill_frac:
            drills = _drill_batch(maker, rng.choice(hardest), config)
            loss, _ = drill_loss(model, drills, maker.letter_ids)
        else:
            loss = _weighted_loss(model, *_pad(next(batches)))
            loss_value = float(loss.detach())
        _step(model, optimizers, loss)
        progress(f"SFT, loss {loss_value:.3f}", step)
    model.eval()
    return loss_value


def drill_loss(
    model: Qwen3ForCausalLM, drills: Sequence[Drill], letter_ids: tuple[int, int]
) -> tuple[Tensor, float]:
    """The CA loss, without a clip, at every scored position; and the share that was right."""
    width = _width(len(drill.token_ids) for drill in drills)
    ids_B_T = torch.zeros(len(drills), width, dtype=torch.long)
    for row, drill in enumerate(drills):
        ids_B_T[row, : len(drill.token_ids)] = torch.tensor(drill.token_ids)
    rows_N = torch.tensor([row for row, drill in enumerate(drills) for _ in drill.positions])
    at_N = torch.tensor([position for drill in drills for position in drill.positions])
    second_N = torch.tensor([second for drill in drills for second in drill.second])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden_B_T_H = model.model(input_ids=ids_B_T, use_cache=False).last_hidden_state
        letters_N_2 = hidden_B_T_H[rows_N, at_N] @ model.lm_head.weight[list(letter_ids)].T
    a_minus_b_N = letters_N_2[:, 0].float() - letters_N_2[:, 1].float()
    result = ca_loss(torch.where(second_N, -a_minus_b_N, a_minus_b_N), clip=NO_CLIP)
    return result.loss, float(result.metrics["ca/accuracy"])


def _drill_batch(maker: DrillMaker, stage: int, config: WarmupConfig) -> list[Drill]:
    """Drills of one stage, as many as `config.drill_tokens` hold once they are padded."""
    make, drills, width = maker.stages[stage][1], [], 0
    while width * len(drills) < config.drill_tokens:
        drills.append(make())
        width = max(width, len(drills[-1].token_ids))
    return drills


def _weighted_loss(model: Qwen3ForCausalLM, ids_B_T: Tensor, weights_B_T: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden_B_T_H = model.model(input_ids=ids_B_T, use_cache=False).last_hidden_state
        keep = weights_B_T[:, 1:] > 0  # logits only where something is learned
        logits_N_V = model.lm_head(hidden_B_T_H[:, :-1][keep])
    loss_N = torch.nn.functional.cross_entropy(
        logits_N_V.float(), ids_B_T[:, 1:][keep], reduction="none"
    )
    weights_N = weights_B_T[:, 1:][keep]
    return (loss_N * weights_N).sum() / weights_N.sum()


def _batches(
    runs: Sequence[SFTSequence], config: WarmupConfig, rng: random.Random
) -> Iterator[list[SFTSequence]]:
    """Endless batches of like lengths."""
    while True:
        drawn = rng.choices(runs, k=BUCKETS * config.batch_size)
        drawn.sort(key=lambda sequence: len(sequence.token_ids))
        size = config.batch_size
        group = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        rng.shuffle(group)
        yield from group


def _pad(batch: Sequence[SFTSequence]) -> tuple[Tensor, Tensor]:
    """Right-padded; a causal model never sees the padding, and its weight is zero."""
    width = _width(len(sequence.token_ids) for sequence in batch)
    ids_B_T = torch.zeros(len(batch), width, dtype=torch.long)
    weights_B_T = torch.zeros(len(batch), width)
    for row, sequence in enumerate(batch):
        n = len(sequence.token_ids)
        ids_B_T[row, :n] = torch.tensor(sequence.token_ids)
        weights_B_T[row, :n] = torch.tensor(sequence.weights)
    return ids_B_T, weights_B_T


def _width(lengths: Iterable[int]) -> int:
    """Rounded up: oneDNN plans each new shape, and keeps the plan."""
    return -(-max(lengths) // SHAPE_UNIT) * SHAPE_UNIT


Optimizers = list[tuple[torch.optim.Optimizer, float]]
"""Each with its base learning rate."""


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then cosine to a twentieth."""
    decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, step / WARMUP_STEPS) * decay


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


def _optimizers(
    model: Qwen3ForCausalLM, config: WarmupConfig, *, weight_decay: float
) -> Optimizers:
    """Muon on the hidden matrices, AdamW on embeddings and norms."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=MUON_LR, weight_decay=weight_decay, adjust_lr_fn="original"
    )
    adam = torch.optim.AdamW(
        rest, lr=config.learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98)
    )
    return [(muon, MUON_LR), (adam, config.learning_rate)]
