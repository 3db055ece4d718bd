"""What would stop a training after minutes, looked at before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from contextrl.agents.codec import codec_of
from contextrl.agents.prompting import prompt_set
from contextrl.envs.types import Task
from contextrl.pairs.render import option_token_ids
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_set import PairSet, pair_style
from contextrl.verl_ext.pair_source import measured_pairs
from contextrl.verl_ext.probing import PairProbe
from contextrl.verl_ext.sampling import check_sampling
from contextrl.verl_ext.scorer_hf import load_tokenizer
from contextrl.verl_ext.settings import CAConfig, JobConfig


def check_engine(config: DictConfig, ca: CAConfig) -> None:
    """What the engine refuses at its first update is refused here, an hour of rollouts earlier.

    Raises `ConfigError`.
    """
    for key in ("trainer.nnodes", "trainer.n_gpus_per_node"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"expected {key} to be a whole number from 1 on, found {value!r}")
    n_ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    _check_micro_batches(config, n_ranks)
    rollout = config.actor_rollout_ref.rollout
    if rollout.name == "hf":
        check_sampling(rollout)
        check_sampling(rollout.val_kwargs)
    if ca.pairs is None and config.job.needs_gpu:  # the CPU presets make pairs of their own
        return
    actor = config.actor_rollout_ref.actor
    sequence_ranks = OmegaConf.select(actor, "ulysses_sequence_parallel_size") or 1
    if sequence_ranks != 1:
        raise ConfigError(
            "the CA pass expects actor_rollout_ref.actor.ulysses_sequence_parallel_size 1, found "
            f"{sequence_ranks}; set it to 1, or ca.pairs=null for plain GRPO"
        )
    if config.actor_rollout_ref.model.use_fused_kernels:
        raise ConfigError(
            "the CA pass expects actor_rollout_ref.model.use_fused_kernels=False, found True: "
            "fused kernels bypass the output layer; set it to False"
        )
    precision = OmegaConf.select(actor, "fsdp_config.mixed_precision.param_dtype")
    if str(precision) in ("16", "fp16", "float16"):
        raise ConfigError(
            "the CA pass expects fsdp_config.mixed_precision.param_dtype bf16 or fp32, found "
            f"{precision}: its loss is not scaled as veRL scales GRPO's; change it"
        )
    ca.check_ranks(n_ranks)


def _check_micro_batches(config: DictConfig, n_ranks: int) -> None:
    actor = config.actor_rollout_ref.actor
    if actor.use_dynamic_bsz:
        return
    replies = actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    size = actor.ppo_micro_batch_size_per_gpu
    if not size or replies % (n_ranks * size):
        raise ConfigError(
            "expected the replies of an update, ppo_mini_batch_size x rollout.n = "
            f"{actor.ppo_mini_batch_size} x {config.actor_rollout_ref.rollout.n}, to be a multiple "
            f"of ranks x ppo_micro_batch_size_per_gpu, found {n_ranks} x {size}; change "
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
        )


def settle_steps(config: DictConfig, n_rows: int) -> str | None:
    """`trainer.total_training_steps` is how many steps the training takes; why it is fewer, if so.

    veRL stops at `trainer.total_epochs` without the last checkpoint and validation if steps were
    asked for beyond it, and fails after the first validation where the rows make no batch.
    Raises `ConfigError`.
    """
    batch, epochs = config.data.train_batch_size, config.trainer.total_epochs
    if n_rows < batch:
        raise ConfigError(
            f"expected at least data.train_batch_size = {batch} rows to train on, found {n_rows}; "
            "lower it (with actor_rollout_ref.actor.ppo_mini_batch_size) or give more"
        )
    most, asked = n_rows // batch * epochs, config.trainer.total_training_steps
    with open_dict(config):
        config.trainer.total_training_steps = most if asked is None else min(asked, most)
    if asked is None or asked <= most:
        return None
    return (
        f"{most} steps instead of {asked}: trainer.total_epochs = {epochs} over {n_rows} rows in "
        f"batches of {batch}; raise trainer.total_epochs for more"
    )


def check_inputs(model: str, job: JobConfig, ca: CAConfig, tasks: Iterable[Sequence[Task]]) -> None:
    """The tokenizer loads, both letters are one token, pairs and prompts fit.

    Raises `ModelError`, `OptionTokenError`, `PairFileError`, `SourceError` or `ConfigError`.
    """
    tokenizer = load_tokenizer(model)
    if ca.pairs is not None:
        option_token_ids(tokenizer, pair_style(ca).prefill)
        PairSet.load(ca, tokenizer)
    if (measured := measured_pairs(ca)) is not None:
        PairProbe(ca, measured, tokenizer)
    codec = codec_of(tokenizer, template_kwargs=job.template_kwargs)
    prompts = prompt_set(job.prompts)
    room = job.limits.max_context_tokens
    for task in (task for split in tasks for task in split):
        n_tokens = len(codec.prompt_ids(prompts.render_task(task)))
        if n_tokens >= room:
            raise ConfigError(
                f"task {task.task_id}: expected a prompt shorter than the context of {room} "
                f"tokens, found {n_tokens}; raise job.limits.max_context_tokens or leave "
                "the task out"
            )
