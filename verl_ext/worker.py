"""veRL's worker with the CA engine inside, plus one verb: score pairs for the probe."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch.distributed as dist
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.device import get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from contextrl.pairs.render import EncodedPair
from contextrl.verl_ext import engine  # noqa: F401  registers the engine in this process
from contextrl.verl_ext.collate import jagged, rows_of_positions
from contextrl.verl_ext.register import register_rollout

register_rollout()


class ContextAwareTrainingWorker(TrainingWorker):  # type: ignore[misc]
    """The engine carries the difference; here only what reaches it is put right."""

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        return super().train_mini_batch(_by_length(data))

    def infer_batch(self, data: TensorDict) -> TensorDict:
        return super().infer_batch(_by_length(data))


def _by_length(data: TensorDict) -> TensorDict:
    """Positions of a model that sees, [B, 4, T], are jagged in T.

    A batch whose sequences all have one length comes out of the queue jagged in the 4, and veRL
    0.9.1 then splits it along the wrong axis.
    """
    if "position_ids" in data.keys() and data["position_ids"].dim() == 3:  # noqa: SIM118
        data["position_ids"] = jagged(rows_of_positions(data["position_ids"]))
    return data


class ContextAwareWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    actor_worker_cls = ContextAwareTrainingWorker
    ref_worker_cls = ContextAwareTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        if get_device_name() == "cpu" and not dist.is_initialized():
            # veRL would build the backend string "cpu:gloo,cpu:gloo" and fail on the duplicate;
            # it skips initialisation when a group exists.
            dist.init_process_group(
                "cpu:gloo",
                rank=int(os.environ["RANK"]),
                world_size=int(os.environ["WORLD_SIZE"]),
                init_method=os.environ.get("DIST_INIT_METHOD"),
            )
        super().init_model()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def ca_margins(self, pairs: Sequence[EncodedPair], micro_batch_size: int) -> list[float]:
        """log p(correct) - log p(other) of every pair, in order; the same list on every rank."""
        with self.actor.engine.eval_mode():
            return self.actor.engine.ca_margins(pairs, micro_batch_size=micro_batch_size)
