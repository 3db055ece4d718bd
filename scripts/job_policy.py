"""Stage `policy`: the tiny policy, warmed up by SFT on scripted runs and the selection format."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from contextrl.agents.codec import codec_of
from contextrl.agents.prompting import prompt_set
from contextrl.agents.types import Trajectory
from contextrl.envs.docker import DockerProvider
from contextrl.envs.task_splits import TaskSplits
from contextrl.envs.types import Task
from contextrl.pairs.cascade import Caps, mine
from contextrl.pairs.render import encode, render
from contextrl.pairs.types import Order, Pair
from contextrl.scripts.stages import Cache, file_digest, source_digest
from contextrl.verl_ext.pair_set import pair_style
from contextrl.verl_ext.scripted_runs import play_scripts
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.sft_data import SFTSequence, from_pair, from_run, within
from contextrl.verl_ext.tiny import END, build_model, save, train_tokenizer
from contextrl.verl_ext.warmup import supervise

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


def warm_policy(
    job: JobConfig, ca: CAConfig, splits: TaskSplits, cache: Cache, progress: Progress
) -> tuple[Path, bool]:
    """The folder of the warmed-up model, and whether it was cached."""
    inputs = {
        "tasks": file_digest(splits.folder),
        "warmup": dataclasses.asdict(job.warmup),
        "limits": dataclasses.asdict(job.limits),
        "prompts": job.prompts,
        "style": ca.style,
        "code": source_digest(
            "contextrl.agents",
            "contextrl.agents.prompts",
            "contextrl.pairs",
            "contextrl.verl_ext:tiny.py",
            "contextrl.verl_ext:sft_data.py",
            "contextrl.verl_ext:warmup.py",
            "contextrl.scripts:job_policy.py",
        ),
    }
    return cache.folder("policy", inputs, lambda folder: _make(job, ca, splits, folder, progress))


def _make(
    job: JobConfig, ca: CAConfig, splits: TaskSplits, folder: Path, progress: Progress
) -> None:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    tasks = [*splits.train, *splits.extra][: job.warmup.max_runs]
    with DockerProvider(run_id="warm-up") as provider:
        runs = play_scripts(
            tasks,
            provider,
            prompt_set(job.prompts),
            job.limits,
            progress=lambda done: progress("scripted runs", done, len(tasks)),
        )
    pairs = _pairs(runs, tasks, job, ca)
    logger.info("%d scripted runs, %d selection pairs", len(runs), len(pairs))

    texts = [message.content for run in runs for message in run.messages]
    style = pair_style(ca)
    texts += [render(pair, Order.POSITIVE_FIRST, style).prompt for pair in pairs[:200]]
    tokenizer = train_tokenizer(texts, job.warmup.vocab_size)
    codec = codec_of(tokenizer)
    end_id = tokenizer.convert_tokens_to_ids(END)
    selections = [
        from_pair(encode(render(pair, order, style), tokenizer), end_id)
        for pair in pairs
        for order in Order
    ]
    model = build_model(job.warmup, tokenizer, max_context_tokens=2 * job.limits.max_context_tokens)
    steps = job.warmup.steps
    supervise(
        model,
        _fitting([from_run(run, codec) for run in runs], job.limits.max_context_tokens, "runs"),
        _fitting(selections, ca.max_prompt_tokens, "selections"),
        job.warmup,
        progress=lambda step, loss: progress(f"SFT, loss {loss:.3f}", step, steps),
    )
    save(model, tokenizer, folder)


def _pairs(
    runs: Sequence[Trajectory], tasks: Sequence[Task], job: JobConfig, ca: CAConfig
) -> list[Pair]:
    """Pairs for the selection format, from tasks that RL or warm-up trains on, never held-out."""
    if job.warmup.selection_frac == 0:
        return []
    caps = Caps(per_function=256, per_file=4096, per_trajectory=8, limit=job.warmup.max_pairs)
    return list(mine(runs, tasks, seed=job.warmup.seed, caps=caps).pairs)


def _fitting(sequences: list[SFTSequence], max_tokens: int, what: str) -> list[SFTSequence]:
    kept = within(sequences, max_tokens)
    logger.info(
        "warm-up %s: kept %d/%d within %d tokens", what, len(kept), len(sequences), max_tokens
    )
    return kept
