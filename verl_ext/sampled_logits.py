"""Logits of sampled tokens alone: GRPO reads no others, and they are most of a pass's memory.

veRL 0.9.1 takes logits at every position, of prompts and of what the tools said too, and leaves
them out of the loss: those of 32,768 tokens are 10 GB in bfloat16, 20 with their gradient. Here the
hidden states are cut to the sampled positions right before the output layer, as in the CA pass.

Shape letters: B sequences, R tokens of all replies, P tokens of all sequences, S sampled ones, V.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine.fsdp import transformer_impl

from contextrl.verl_ext.errors import EngineHookError
from contextrl.verl_ext.last_position import logits_at

NOT_OURS = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk")
"""Passes with one of these go veRL's own way: it needs all logits, or makes none."""


class SampledLogitsMixin:
    """For an FSDP engine: log-probabilities and entropy are zero where nothing was sampled."""

    _sampled_S: Tensor | None = None
    """Of the micro-batch under way: positions in the packed tokens that predict a sampled one."""

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable[..., Any] | None, forward_only: bool
    ) -> Any:
        micro_batch = micro_batch.to(get_device_id())
        sampled_S = None if self._goes_verls_way(micro_batch) else sampled_positions(micro_batch)
        if sampled_S is None:
            return super().forward_step(micro_batch, loss_function, forward_only)  # type: ignore[misc]
        packed = tu.get_non_tensor_data(micro_batch, key="use_remove_padding", default=True)
        offsets = None if packed else micro_batch["input_ids"].offsets()
        model = getattr(self.module, "_fsdp_wrapped_module", self.module)  # type: ignore[attr-defined]
        self._sampled_S = sampled_S
        try:
            with logits_at(model, sampled_S, offsets=offsets):
                return super().forward_step(micro_batch, loss_function, forward_only)  # type: ignore[misc]
        finally:
            self._sampled_S = None

    def prepare_model_outputs(
        self,
        output: Any,
        output_args: dict[str, Any],
        micro_batch: TensorDict,
        logits_processor_func: Any,
    ) -> dict[str, Tensor]:
        at_S = self._sampled_S
        if at_S is None:
            return super().prepare_model_outputs(  # type: ignore[misc, no-any-return]
                output, output_args, micro_batch, logits_processor_func
            )
        input_ids = micro_batch["input_ids"]
        labels_P = output_args["input_ids_rmpad_rolled"]
        logits_S_V = output.logits[0]
        if isinstance(logits_S_V, DTensor):
            logits_S_V = logits_S_V.full_tensor()
        if logits_S_V.shape[0] != len(at_S):
            raise EngineHookError(
                f"expected logits of {len(at_S)} sampled tokens, got {logits_S_V.shape[0]}: the "
                "model's output layer was not called as usual"
            )
        if not output_args.get("temperature_is_one", False):
            temperature_P = output_args.get("temperature_rmpad")
            if temperature_P is None:
                lengths = input_ids.offsets().diff()
                temperature_P = output_args["temperature"].repeat_interleave(lengths)
            temperature_S_1 = temperature_P[at_S, None].clamp(min=1e-8)
            logits_S_V = logits_S_V / temperature_S_1.to(logits_S_V.dtype)
        found = {}
        entropy = tu.get_non_tensor_data(micro_batch, key="calculate_entropy", default=False)
        if entropy:
            found["entropy"] = self._entropy(logits_S_V)
        found["log_probs"] = transformer_impl.logprobs_from_logits(
            logits=logits_S_V, labels=labels_P[at_S], inplace_backward=not entropy
        )
        n_tokens = input_ids.values().shape[0]
        return {
            name: torch.nested.nested_tensor_from_jagged(
                values_S.new_zeros(n_tokens).index_put((at_S,), values_S), input_ids.offsets()
            )
            for name, values_S in found.items()
        }

    def _entropy(self, logits_S_V: Tensor) -> Tensor:
        config, take = self.engine_config, self.compute_entropy_from_logits  # type: ignore[attr-defined]
        if config.entropy_from_logits_with_chunking:
            take = partial(take, chunk_size=config.entropy_from_logits_chunk_size)
        if config.entropy_checkpointing:
            take = partial(checkpoint, take, use_reentrant=False)
        entropy_S: Tensor = take(logits_S_V)
        return entropy_S

    def _goes_verls_way(self, micro_batch: TensorDict) -> bool:
        asked = [tu.get_non_tensor_data(micro_batch, key=key, default=False) for key in NOT_OURS]
        return any(asked) or bool(getattr(self, "use_ulysses_sp", False))


def sampled_positions(micro_batch: TensorDict) -> Tensor | None:
    """[S] positions in the packed sequences whose next token was sampled, in order.

    At least one where there is a reply at all. None where the batch does not say
    which tokens were sampled.
    """
    names = ("prompts", "response_mask")
    if any(name not in micro_batch.keys() for name in names):  # noqa: SIM118  (a TensorDict)
        return None
    prompts, mask = (micro_batch[name] for name in names)
    if not (prompts.is_nested and mask.is_nested):
        return None
    starts_B = micro_batch["input_ids"].offsets()[:-1] + prompts.offsets().diff() - 1
    lengths_B = mask.offsets().diff()
    shift_R = (starts_B - mask.offsets()[:-1]).repeat_interleave(lengths_B)
    at_R = shift_R + torch.arange(len(shift_R), device=shift_R.device)
    at_S = at_R[mask.values() > 0]
    # An output layer that saw nothing would have no gradient, and other ranks wait for it.
    return at_S if len(at_S) else at_R[:1]
