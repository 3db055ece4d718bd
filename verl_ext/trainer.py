"""veRL's synchronous PPO trainer with our additions: pairs per step, the probe, metrics.

One training step is veRL's own (rollout, old log-probabilities, advantages, update, weight sync).
We attach a `CARequest` to the update, run the pair probe at every validation, and append every
step's metrics to `metrics.jsonl` in the run folder, which survives a resume.
"""

from __future__ import annotations

import json
import logging
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from verl.single_controller.ray import ResourcePoolManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.device import get_device_name

from contextrl.verl_ext.engine import REQUEST_KEY, CARequest
from contextrl.verl_ext.errors import ConfigError, EmptyBatchError
from contextrl.verl_ext.line_file import open_to_append
from contextrl.verl_ext.pair_source import measured_pairs
from contextrl.verl_ext.papo import REQUEST_KEY as PAPO_KEY
from contextrl.verl_ext.papo import PAPORequest
from contextrl.verl_ext.probing import PairProbe, WorkerGroupScorer
from contextrl.verl_ext.quick_bootstrap import install as install_quick_bootstrap
from contextrl.verl_ext.scorer_hf import load_tokenizer
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.settings_papo import PAPOConfig
from contextrl.verl_ext.worker import ContextAwareWorker

logger = logging.getLogger(__name__)

TRAINER_MODE = "contextrl_sync"

install_quick_bootstrap()


class CPUResourcePoolManager(ResourcePoolManager):  # type: ignore[misc]
    """veRL counts only Ray's GPU and NPU resources."""

    def _check_resource_available(self) -> None:
        needed = self.get_n_gpus()
        found = ray.available_resources().get("CPU", 0)
        if found < needed:
            raise ConfigError(
                f"expected {needed} free CPUs in the Ray cluster for the trainer's ranks, found "
                f"{found:g}; lower trainer.n_gpus_per_node or raise ray_kwargs.ray_init.num_cpus"
            )


@register_trainer(TRAINER_MODE)
class ContextAwareTrainer(PPOTrainerSync):  # type: ignore[misc]
    # veRL branches on `trainer_mode == "sync"`; any other name silently gets the asynchronous
    # replay buffer. Ours is synchronous under a name of its own.
    trainer_mode = property(lambda self: "sync", lambda self, value: None)

    def __init__(self, config: Any) -> None:
        self.ca = CAConfig.from_mapping(config.ca)
        self.job = JobConfig.from_mapping(config.job)
        self.papo = PAPOConfig.from_mapping(config.get("papo"))
        super().__init__(config)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        groups = self._rewards_by_group(batch).values()
        mixed = [len(set(rewards)) > 1 for rewards in groups]  # the others teach GRPO nothing
        metrics["groups/mixed_frac"] = sum(mixed) / max(1, len(mixed))
        return super()._compute_advantage(batch, metrics)

    def _rewards_by_group(self, batch: Any) -> dict[str, list[float]]:
        """The reward of each episode, by the id that veRL gives to its group."""
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "rm_scores"]
        )
        groups: dict[str, list[float]] = {}
        scores = [float(one.sum()) for one in data["rm_scores"].unbind()]
        for uid, score, tag in zip(_listed(data["uid"]), scores, batch.tags, strict=True):
            if not tag.get("is_padding", False):
                groups.setdefault(uid, []).append(score)
        return groups

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = self.job.poll_interval_s
        return buffer

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if get_device_name() == "cpu":
            self.resource_pool_manager.__class__ = CPUResourcePoolManager
        for role in (Role.ActorRollout, Role.ActorRolloutRef, Role.Actor):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(ContextAwareWorker)

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if len(batch) == 0:
            raise EmptyBatchError(
                f"step {self.global_steps}: expected at least one usable episode, found none; all "
                f"were excluded for infrastructure failures, see {self.job.run_dir}/episodes"
            )
        return super()._balance_batch(batch, *args, **kwargs)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if self.ca.pairs is not None:
            batch.extra_info[REQUEST_KEY] = CARequest(
                config=self.ca,
                train_step=self.global_steps - 1,
                updates_per_step=self._updates_per_step(),
            )
        if self.papo.active:
            batch.extra_info[PAPO_KEY] = PAPORequest(
                config=self.papo, train_step=self.global_steps - 1
            )
        try:
            output = super()._update_actor(batch, metrics)
        finally:
            for key in (REQUEST_KEY, PAPO_KEY):
                batch.extra_info.pop(key, None)
        for key in [key for key in metrics if key.startswith(("actor/ca/", "actor/papo/"))]:
            metrics[key.removeprefix("actor/")] = metrics.pop(key)
        return output

    def _updates_per_step(self) -> int:
        actor = self.config.actor_rollout_ref.actor
        # Rounded up: veRL fills the last mini-batch with padding.
        batches = -(-self.config.data.train_batch_size // actor.ppo_mini_batch_size)
        return int(batches) * int(actor.ppo_epochs)

    def _validate(self) -> dict[str, float]:
        metrics: dict[str, float] = super()._validate()
        if self._pair_probe is not None:
            # The rollout's weights and cache would stay on the devices beside the trainer's.
            self.checkpoint_manager.sleep_replicas()
            scorer = WorkerGroupScorer(self.actor_rollout_wg, self.ca.micro_batch_size)
            report = self._pair_probe.report(scorer)
            self.checkpoint_manager.update_weights(self.global_steps)
            path = self._run_dir / "probe" / f"step-{self.global_steps}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(report.model_dump_json(indent=1), encoding="utf-8")
            metrics |= {
                "probe/accuracy": report.accuracy.mean,
                "probe/share_a": report.share_a,
                "probe/margin": report.mean_margin,
            }
        self._log_metrics("validate", metrics)
        return metrics

    @cached_property
    def _pair_probe(self) -> PairProbe | None:
        pairs = measured_pairs(self.ca)
        return None if pairs is None else PairProbe(self.ca, pairs, self._probe_tokenizer())

    def _probe_tokenizer(self) -> Any:
        """veRL's tokenizer knows of no images; one that does is read from the model's folder."""
        if self.processor is None:
            return self.tokenizer
        return load_tokenizer(
            self.config.actor_rollout_ref.model.path,
            min_pixels=self.ca.min_pixels,
            max_pixels=self.ca.max_pixels,
        )

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        self._log_metrics("train", metrics)

    @property
    def _run_dir(self) -> Path:
        return Path(self.job.run_dir)

    def _log_metrics(self, kind: str, metrics: dict[str, Any]) -> None:
        numbers = {key: float(value) for key, value in metrics.items() if _is_number(value)}
        line = json.dumps({"kind": kind, "step": self.global_steps, "metrics": numbers})
        descriptor = open_to_append(self._run_dir / "metrics.jsonl")
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)


def _listed(column: Any) -> list[Any]:
    """Of a non-tensor column, whichever of TransferQueue's types it has."""
    return list(column.tolist() if hasattr(column, "tolist") else column)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str)
