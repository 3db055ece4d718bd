"""The CA loss inside veRL's engine, whose internals (veRL 0.9.1) no other file knows but `papo` and
`sampled_logits`.

A mixin over `forward_backward_batch`: CA micro-batches run first, then veRL's own GRPO
micro-batches, into the same gradients, before the same clip and the same optimizer step.

Shape letters as in `ca_loss` and `collate`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils import torch_functional
from verl.utils.device import get_device_id, get_device_name
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from contextrl.pairs.render import EncodedPair
from contextrl.verl_ext.ca_loss import ca_loss, option_margin
from contextrl.verl_ext.collate import PairBatch, collate
from contextrl.verl_ext.errors import ConfigError, EngineHookError
from contextrl.verl_ext.grad_norms import give_back_gradients, take_gradients
from contextrl.verl_ext.image_attention import attend_by_length
from contextrl.verl_ext.last_position import last_position_logits
from contextrl.verl_ext.padding import drop_padding_mask
from contextrl.verl_ext.pair_set import PairSet
from contextrl.verl_ext.papo import PerceptionMixin
from contextrl.verl_ext.quick_batches import install as install_quick_batches
from contextrl.verl_ext.quick_norms import quicken_norms
from contextrl.verl_ext.sampled_logits import SampledLogitsMixin
from contextrl.verl_ext.sampler import pairs_at, pairs_for_rank, sampler_step
from contextrl.verl_ext.settings import CAConfig
from contextrl.verl_ext.token_logprobs import token_logprobs
from contextrl.verl_ext.vision import (
    ROW_KEY,
    check_placeholders,
    freeze_vision_tower,
    is_vision,
    plain_vision_output,
)
from contextrl.verl_ext.vision_tokenizer import tokenizer_of

logger = logging.getLogger(__name__)

REQUEST_KEY = "contextrl_ca"
"""Where the trainer's `CARequest` travels in a batch's non-tensor data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CARequest:
    """What the trainer tells every rank about one rollout batch."""

    config: CAConfig
    train_step: int
    """Rollout batches so far, from 0."""
    updates_per_step: int
    """Optimizer steps per rollout batch."""


class ContextAwareMixin:
    """Adds the CA term to an FSDP engine; without a `CARequest` in the batch it changes nothing."""

    _pairs: PairSet | None = None
    _update: tuple[int, int] = (-1, 0)
    """(train step, optimizer steps taken within it)."""

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable[..., Any], forward_only: bool = False
    ) -> Any:
        request: CARequest | None = tu.pop(data, REQUEST_KEY, default=None)
        if not (forward_only or self.use_remove_padding):  # type: ignore[attr-defined]
            data = _by_length(data, tu.get(data, key="micro_batch_size_per_gpu", default=None))
        if forward_only or request is None:
            return super().forward_backward_batch(data, loss_function, forward_only)  # type: ignore[misc]

        config, update = request.config, self._next_update(request.train_step)
        step = sampler_step(
            config.reuse,
            train_step=request.train_step,
            update=update,
            updates_per_step=request.updates_per_step,
        )
        optimizer_step = request.train_step * request.updates_per_step + update
        measure = (
            config.lam > 0
            and config.grad_norm_every > 0
            and optimizer_step % config.grad_norm_every == 0
        )
        metrics = self._ca_backward(config, step, reduce_now=measure)
        if measure:
            ca_grads = take_gradients(self.module)  # type: ignore[attr-defined]
        output = super().forward_backward_batch(data, loss_function, forward_only)  # type: ignore[misc]
        if measure:
            metrics |= give_back_gradients(ca_grads)
        if self.is_mp_src_rank_with_outputs():  # type: ignore[attr-defined]
            output["metrics"].update(metrics)
        return output

    def _build_module(self) -> torch.nn.Module:
        module: torch.nn.Module = super()._build_module()  # type: ignore[misc]
        if get_device_name() == "cpu":
            quicken_norms(module)
            attend_by_length(module)
        if is_vision(self.model_config.hf_config):  # type: ignore[attr-defined]
            plain_vision_output(module)
            if getattr(self.model_config.hf_config, "freeze_vision_tower", False):  # type: ignore[attr-defined]
                freeze_vision_tower(module)
        return module

    def prepare_model_inputs(self, micro_batch: TensorDict) -> Any:
        """Before every forward: no mask that is not needed; and of a model that sees, its images
        and its image tokens fit."""
        config = self.model_config.hf_config  # type: ignore[attr-defined]
        if is_vision(config):
            seen = micro_batch.get("multi_modal_inputs", [None] * len(micro_batch))
            rows = [tu.unwrap_non_tensor_data(each) for each in seen]
            check_placeholders(micro_batch["input_ids"].unbind(), rows, config)
        inputs, for_outputs = super().prepare_model_inputs(micro_batch)  # type: ignore[misc]
        inputs.pop(ROW_KEY, None)
        drop_padding_mask(inputs)
        return inputs, for_outputs

    def ca_margins(self, pairs: Sequence[EncodedPair], *, micro_batch_size: int) -> list[float]:
        """Margins of all `pairs`, in order, on every rank. Forward only; call under `eval_mode`.

        Every rank takes a strided share, padded to one length so that FSDP's collectives match.
        """
        n_ranks, rank = self.get_data_parallel_size(), self.get_data_parallel_rank()  # type: ignore[attr-defined]
        if not pairs:
            return []
        unit = n_ranks * micro_batch_size
        padded = [*pairs, *[pairs[0]] * (-len(pairs) % unit)]
        mine = padded[rank::n_ranks]
        margins: list[float] = []
        with torch.no_grad():
            for batch in _micro_batches(mine, micro_batch_size):
                margins.extend(self._margin(collate(batch)).tolist())
        shares: list[Any] = [None] * n_ranks
        if n_ranks == 1:
            shares = [margins]
        else:
            dist.all_gather_object(shares, margins, group=self.get_data_parallel_group())  # type: ignore[attr-defined]
        merged = [0.0] * len(padded)
        for of_rank, share in enumerate(shares):
            merged[of_rank::n_ranks] = share
        return merged[: len(pairs)]

    def _next_update(self, train_step: int) -> int:
        seen_step, updates = self._update
        update = updates if seen_step == train_step else 0
        self._update = (train_step, update + 1)
        return update

    def _ca_backward(
        self, config: CAConfig, step: int, *, reduce_now: bool
    ) -> dict[str, list[float]]:
        """Accumulate lam * dL_CA; FSDP averages over ranks, so each rank scales by their number."""
        n_ranks, rank = self.get_data_parallel_size(), self.get_data_parallel_rank()  # type: ignore[attr-defined]
        config.check_ranks(n_ranks)
        pair_set = self._pair_set(config)
        draws = pairs_at(len(pair_set), per_step=config.pairs_per_step, seed=config.seed, step=step)
        # Like lengths together: where padding is not removed, it is most of the work otherwise.
        mine = sorted(
            (pair_set.encoded(draw) for draw in pairs_for_rank(draws, rank=rank, n_ranks=n_ranks)),
            key=lambda pair: len(pair.token_ids),
        )
        batches = list(_micro_batches(mine, config.micro_batch_size))
        collected: list[dict[str, Tensor]] = []
        for i, batch in enumerate(batches):
            if config.lam == 0:
                with torch.no_grad():
                    collected.append(
                        ca_loss(self._margin(collate(batch)), clip=config.clip).metrics
                    )
                continue
            # GRPO's last micro-batch reduces the gradients of both terms, unless they are measured.
            last = reduce_now and i == len(batches) - 1
            with self._gradient_sync_context(is_last_micro_batch=last):  # type: ignore[attr-defined]
                loss = ca_loss(self._margin(collate(batch)), clip=config.clip)
                scale = config.lam * len(batch) * n_ranks / config.pairs_per_step
                (scale * loss.loss).backward()
            collected.append(loss.metrics)
        return {key: [float(m[key]) for m in collected] for key in collected[0]}

    def _margin(self, batch: PairBatch) -> Tensor:
        """Margins [B], float32, of one micro-batch through the engine's own input preparation."""
        if getattr(self, "use_ulysses_sp", False):
            raise ConfigError(
                "the CA pass expects ulysses_sequence_parallel_size 1, got more; set it to 1"
            )
        remove_padding = bool(self.engine_config.use_remove_padding)  # type: ignore[attr-defined]
        batch = batch.to(get_device_id())
        micro_batch = tu.get_tensordict(
            {
                "input_ids": batch.input_ids,
                "position_ids": batch.position_ids,
                **({} if batch.seen is None else {"multi_modal_inputs": list(batch.seen)}),
            },
            non_tensor_dict={
                "temperature": 1.0,
                "use_remove_padding": remove_padding,
                "use_fused_kernels": False,
                "pad_token_id": self.model_config.tokenizer.pad_token_id,  # type: ignore[attr-defined]
            },
        )
        inputs, _ = self.prepare_model_inputs(micro_batch)  # type: ignore[attr-defined]
        offsets = batch.input_ids.offsets()
        model = getattr(self.module, "_fsdp_wrapped_module", self.module)  # type: ignore[attr-defined]
        hook = last_position_logits(model, offsets, packed=remove_padding)
        with self._autocast(), hook as hits:
            logits = self.module(**inputs, use_cache=False).logits  # type: ignore[attr-defined]
        if not hits or logits.shape[:2] != (1, len(batch)):
            raise EngineHookError(
                f"expected logits of {len(batch)} scored positions, got {tuple(logits.shape)}; "
                "fused kernels bypass the output layer: set "
                "actor_rollout_ref.model.use_fused_kernels=False"
            )
        return option_margin(logits[0].float(), batch.correct_B_O, batch.other_B_O)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = getattr(self, "_autocast_dtype", torch.bfloat16)
        if dtype == torch.float32:
            return nullcontext()
        return torch.autocast(get_device_name(), dtype=dtype)

    def _pair_set(self, config: CAConfig) -> PairSet:
        if self._pairs is None or self._pairs.config != config:
            self._pairs = PairSet.load(config, tokenizer_of(self.model_config, config))  # type: ignore[attr-defined]
        return self._pairs


def _by_length(data: TensorDict, micro_batch_size: int | None) -> TensorDict:
    """Shortest rows first. A micro-batch without packing is padded to its longest row, and the
    gradient is a sum over all rows in whichever order."""
    if micro_batch_size is not None and len(data) <= micro_batch_size:
        return data
    lengths = data["input_ids"].offsets().diff()
    return tu.index_select_tensor_dict(data, lengths.argsort(stable=True).cpu())


def _micro_batches(pairs: Sequence[EncodedPair], size: int) -> Iterator[Sequence[EncodedPair]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


class ContextAwareFSDPEngine(
    ContextAwareMixin,
    PerceptionMixin,
    SampledLogitsMixin,
    FSDPEngineWithLMHead,  # type: ignore[misc]
):
    """veRL's FSDP engine with the CA term, and PAPO's where it is asked for."""


install_quick_batches()
if not torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE:
    transformer_impl.logprobs_from_logits = token_logprobs

# The (device, vendor) key beats veRL's own device-only key, so the strategy keeps its name.
EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="nvidia"
)(ContextAwareFSDPEngine)


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class ContextAwareCPUEngine(ContextAwareFSDPEngine):
    """The same on gloo."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        # A forward-only (reference) engine hard-codes CPUOffloadPolicy(pin_memory=True), which
        # needs an accelerator to pin for; on a CPU there is nothing to offload either.
        config = self.engine_config
        forward_only = config.forward_only
        object.__setattr__(config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(config, "forward_only", forward_only)
