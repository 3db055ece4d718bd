"""SFT of the tiny policy: minutes on two cores, then it acts well enough for RL to mean something.

Shape letters: B sequences, T tokens.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

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


def supervise(
    model: Qwen3ForCausalLM,
    runs: Sequence[SFTSequence],
    selections: Sequence[SFTSequence],
    config: WarmupConfig,
    *,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train in place for `config.steps`; the last loss. `progress` gets (step, loss)."""
    if not runs:
        raise ConfigError("expected scripted runs to warm up on, found none; check job.tasks")
    rng = random.Random(config.seed)
    torch.manual_seed(config.seed)
    optimizers = _optimizers(model, config)
    batches = _batches(runs, selections, config, rng)
    loss_value = math.nan
    model.train()
    for step in range(1, config.steps + 1):
        factor = _schedule(step, config.steps)
        for optimizer, base_lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = base_lr * factor
        ids_B_T, weights_B_T = _pad(next(batches))
        loss = _weighted_loss(model, ids_B_T, weights_B_T)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss_value = float(loss.detach())
        progress(step, loss_value)
    model.eval()
    return loss_value


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
    runs: Sequence[SFTSequence],
    selections: Sequence[SFTSequence],
    config: WarmupConfig,
    rng: random.Random,
) -> Iterator[list[SFTSequence]]:
    """Endless batches of like lengths; runs and selections apart, because their lengths differ."""
    n_selection = round(BUCKETS * config.selection_frac) if selections else 0
    while True:
        group: list[list[SFTSequence]] = []
        for pool, n_batches in ((runs, BUCKETS - n_selection), (selections, n_selection)):
            drawn = rng.choices(pool, k=n_batches * config.batch_size) if n_batches else []
            drawn.sort(key=lambda sequence: len(sequence.token_ids))
            group += [
                drawn[i : i + config.batch_size] for i in range(0, len(drawn), config.batch_size)
            ]
        rng.shuffle(group)
        yield from group


def _pad(batch: Sequence[SFTSequence]) -> tuple[Tensor, Tensor]:
    """Right-padded; a causal model never sees the padding, and its weight is zero."""
    width = max(len(sequence.token_ids) for sequence in batch)
    ids_B_T = torch.zeros(len(batch), width, dtype=torch.long)
    weights_B_T = torch.zeros(len(batch), width)
    for row, sequence in enumerate(batch):
        n = len(sequence.token_ids)
        ids_B_T[row, :n] = torch.tensor(sequence.token_ids)
        weights_B_T[row, :n] = torch.tensor(sequence.weights)
    return ids_B_T, weights_B_T


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then cosine to a twentieth."""
    decay = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, step / WARMUP_STEPS) * decay


def _optimizers(
    model: Qwen3ForCausalLM, config: WarmupConfig
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon on the hidden matrices, AdamW on embeddings and norms."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=MUON_LR, weight_decay=WEIGHT_DECAY, adjust_lr_fn="original"
    )
    adam = torch.optim.AdamW(
        rest, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    return [(muon, MUON_LR), (adam, config.learning_rate)]
