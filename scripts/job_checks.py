"""What would stop a training after minutes, looked at before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contextrl.agents.codec import codec_of
from contextrl.agents.prompting import prompt_set
from contextrl.envs.types import Task
from contextrl.pairs.render import option_token_ids
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_set import PairSet, pair_style
from contextrl.verl_ext.scorer_hf import load_tokenizer
from contextrl.verl_ext.settings import CAConfig, JobConfig


def check_inputs(model: str, job: JobConfig, ca: CAConfig, tasks: Iterable[Sequence[Task]]) -> None:
    """The tokenizer loads, both letters are one token, pairs and prompts fit.

    Raises `ModelError`, `OptionTokenError`, `PairFileError` or `ConfigError`.
    """
    tokenizer = load_tokenizer(model)
    if ca.pairs is not None:
        option_token_ids(tokenizer, pair_style(ca).prefill)
        PairSet.load(ca, tokenizer)
    codec, prompts = codec_of(tokenizer), prompt_set(job.prompts)
    room = job.limits.max_context_tokens
    for task in (task for split in tasks for task in split):
        n_tokens = len(codec.prompt_ids(prompts.render_task(task)))
        if n_tokens >= room:
            raise ConfigError(
                f"task {task.task_id}: expected a prompt shorter than the context of {room} "
                f"tokens, found {n_tokens}; raise job.limits.max_context_tokens or leave "
                "the task out"
            )
