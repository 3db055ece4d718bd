"""PAPO inside veRL's engine: a second forward of each micro-batch, with the images masked.

A mixin over `forward_step`. The masked forward runs before veRL's own, on the same weights, and
its log-probabilities enter the loss that veRL then takes; micro-batches, scaling and gradient
synchronisation stay veRL's. Every rank runs it for every micro-batch, with or without images, or
FSDP's collectives would hang.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from contextrl.verl_ext.image_masking import with_masked_images
from contextrl.verl_ext.papo_loss import papo_loss
from contextrl.verl_ext.settings_papo import PAPOConfig
from contextrl.verl_ext.vision import is_vision

REQUEST_KEY = "contextrl_papo"
"""Where the trainer's `PAPORequest` travels in a batch's non-tensor data."""

LossFunction = Callable[..., tuple[Tensor, dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PAPORequest:
    """What the trainer tells every rank about one rollout batch."""

    config: PAPOConfig
    train_step: int
    """Rollout batches so far, from 0."""


class PerceptionMixin:
    """Adds PAPO's term to an FSDP engine; a batch without a `PAPORequest` goes as it would."""

    _papo: PAPORequest | None = None
    """Of the batch under way."""

    def forward_backward_batch(
        self, data: TensorDict, loss_function: LossFunction, forward_only: bool = False
    ) -> Any:
        request: PAPORequest | None = tu.pop(data, REQUEST_KEY, default=None)
        if request is not None:
            request.config.require_images(sees=is_vision(self.model_config.hf_config))  # type: ignore[attr-defined]
        self._papo = request
        try:
            return super().forward_backward_batch(data, loss_function, forward_only)  # type: ignore[misc]
        finally:
            self._papo = None

    def forward_step(
        self, micro_batch: TensorDict, loss_function: LossFunction | None, forward_only: bool
    ) -> Any:
        if self._papo is None or forward_only or loss_function is None:
            return super().forward_step(micro_batch, loss_function, forward_only)  # type: ignore[misc]
        config = self._papo.config
        masked_logp_B_T = self._masked_logp(micro_batch, self._papo)
        with_papo = _with_papo(loss_function, masked_logp_B_T, config)
        return super().forward_step(micro_batch, with_papo, forward_only)  # type: ignore[misc]

    def _masked_logp(self, micro_batch: TensorDict, request: PAPORequest) -> Tensor:
        """Log-probabilities [B, T] of the replies, had their images been masked."""
        config = request.config
        processor = self.model_config.processor.image_processor  # type: ignore[attr-defined]
        masked = micro_batch.copy()
        rows = [tu.unwrap_non_tensor_data(each) or {} for each in micro_batch["multi_modal_inputs"]]
        tu.assign_non_tensor_stack(
            masked,
            "multi_modal_inputs",
            [
                with_masked_images(
                    row,
                    processor,
                    ratio=config.mask_ratio,
                    seed=config.seed,
                    step=request.train_step,
                )
                for row in rows
            ],
        )
        tu.assign_non_tensor(masked, calculate_entropy=False)
        found: list[Tensor] = []

        def keep(model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None) -> Any:
            found.append(no_padding_2_padding(model_output["log_probs"], data).float())
            return found[0].new_zeros(()), {}

        with torch.set_grad_enabled(config.masked_gradient):
            super().forward_step(masked, keep, False)  # type: ignore[misc]
        return found[0]


def _with_papo(
    loss_function: LossFunction, masked_logp_B_T: Tensor, config: PAPOConfig
) -> LossFunction:
    """`loss_function` plus PAPO's term, scaled as veRL scales a mean over tokens."""

    def both(
        model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        loss, metrics = loss_function(model_output=model_output, data=data, dp_group=dp_group)
        sampled_B_T = data.select("response_mask").to_padded_tensor()["response_mask"]
        papo = papo_loss(
            no_padding_2_padding(model_output["log_probs"], data).float(),
            masked_logp_B_T,
            sampled_B_T,
            n_tokens=data["batch_num_tokens"],
            coef=config.coef,
            entropy_coef=config.entropy_coef,
            masked_entropy_coef=config.masked_entropy_coef,
        )
        n_ranks = data["dp_size"]  # FSDP averages over them
        found = {
            key: Metric(value=value * n_ranks, aggregation=AggregationType.SUM)
            for key, value in papo.metrics.items()
        }
        return loss + papo.loss * n_ranks, {**metrics, **found}

    return both
