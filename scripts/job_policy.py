"""Stage `policy`: the tiny policy, warmed up on reading drills and scripted runs."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from contextrl.agents.codec import ChatCodec, codec_of
from contextrl.agents.prompting import prompt_set
from contextrl.agents.types import Trajectory
from contextrl.envs.places import open_provider
from contextrl.envs.types import Task
from contextrl.scripts.job_play import require_played
from contextrl.scripts.job_tasks import JobTasks
from contextrl.scripts.stages import Cache, digest, file_digest, source_digest
from contextrl.verl_ext.drills import DrillMaker, function_views
from contextrl.verl_ext.made_up_bugs import BugMaker
from contextrl.verl_ext.pair_set import pair_style
from contextrl.verl_ext.scripted_runs import play_scripts
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.sft_data import SFTSequence, from_run, within
from contextrl.verl_ext.tiny import build_model, save, train_tokenizer
from contextrl.verl_ext.warmup import warm_up

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


def warm_policy(
    job: JobConfig, ca: CAConfig, tasks: JobTasks, cache: Cache, progress: Progress
) -> tuple[Path, bool]:
    """The folder of the warmed-up model, and whether it was cached."""
    assert tasks.splits is not None, "a tiny policy is for a package's tasks"
    shown = [*tasks.splits.extra, *tasks.demonstrated()][: job.warmup.max_runs]
    inputs = {
        "tasks": file_digest(tasks.splits.folder),
        "shown": digest({"ids": [task.task_id for task in shown]}),
        "warmup": dataclasses.asdict(job.warmup),
        "limits": dataclasses.asdict(job.limits),
        "prompts": job.prompts,
        "style": ca.style,
        "prefill": ca.prefill,
        "code": source_digest(
            "contextrl.agents",
            "contextrl.envs",
            *(f"contextrl.pairs:{name}.py" for name in ("encode", "render")),
            "contextrl.verl_ext:ca_loss.py",
            "contextrl.verl_ext:curriculum.py",
            "contextrl.verl_ext:drills.py",
            "contextrl.verl_ext:made_up_bugs.py",
            "contextrl.verl_ext:muon.py",
            "contextrl.verl_ext:quick_norms.py",
            "contextrl.verl_ext:scripted_runs.py",
            "contextrl.verl_ext:tiny.py",
            "contextrl.verl_ext:sft_data.py",
            "contextrl.verl_ext:warmup.py",
            "contextrl.scripts:job_policy.py",
        ),
    }
    return cache.folder("policy", inputs, lambda folder: _make(job, ca, shown, folder, progress))


def _make(
    job: JobConfig, ca: CAConfig, tasks: Sequence[Task], folder: Path, progress: Progress
) -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    with open_provider(run_id="warm-up", roots=job.sandbox.roots_folder) as provider:
        runs = play_scripts(
            tasks,
            provider,
            prompt_set(job.prompts),
            job.limits,
            progress=lambda done: progress("scripted runs", done, len(tasks)),
        )
    require_played(runs)
    style = pair_style(ca)
    texts = [message.content for run in runs for message in run.messages]
    words = [style.option_header.format(letter=letter) for letter in "AB"]
    words += [style.answer_header, style.closing]
    tokenizer = train_tokenizer([*texts, *words * 100], job.warmup.vocab_size)
    room = job.limits.max_context_tokens
    maker = DrillMaker(
        tokenizer,
        style,
        function_views(runs),
        seed=job.warmup.seed,
        n_stages=job.warmup.drill_stages,
    )
    draw = _drawing(job, tasks, runs, codec_of(tokenizer))
    build = partial(build_model, job.warmup, tokenizer, max_context_tokens=2 * room)
    model = warm_up(lambda seed: build(seed=seed), draw, maker, job.warmup, progress=progress)
    save(model, tokenizer, folder)


def _drawing(
    job: JobConfig, tasks: Sequence[Task], runs: Sequence[Trajectory], codec: ChatCodec
) -> Callable[[], SFTSequence]:
    """Draws the run to learn from next: a real bug's, or a made-up one's."""
    room = job.limits.max_context_tokens
    real = _fitting([from_run(run, codec) for run in runs], room, "runs")
    made_up = BugMaker(tasks, runs, prompt_set(job.prompts), seed=job.warmup.seed)
    rng = random.Random(job.warmup.seed)

    def draw() -> SFTSequence:
        if rng.random() >= job.warmup.made_up_frac:
            return rng.choice(real)
        while True:
            for sequence in within([from_run(made_up.draw(), codec)], room):
                return sequence

    return draw


def _fitting(sequences: list[SFTSequence], max_tokens: int, what: str) -> list[SFTSequence]:
    kept = within(sequences, max_tokens)
    logger.info(
        "warm-up %s: kept %d/%d within %d tokens", what, len(kept), len(sequences), max_tokens
    )
    return kept
