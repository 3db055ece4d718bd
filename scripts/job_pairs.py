"""Stage `pairs`: episodes on the run's own tasks become contrastive pairs.

Training pairs come from the policy's episodes on the training tasks. Held-out pairs come from a
scripted agent on the held-out tasks: a tiny policy does not find functions it has never seen, so
its own episodes there hold no evidence, and a fixed script gives every policy the same questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from contextrl.agents.prompting import prompt_set
from contextrl.agents.store import read_trajectories
from contextrl.agents.types import Trajectory
from contextrl.envs.places import open_provider
from contextrl.envs.types import Task
from contextrl.pairs.cascade import MINER, Caps, mine
from contextrl.pairs.store import write_pairs
from contextrl.scripts.job_play import EPISODES, PLAYING, Progress, play, require_played
from contextrl.scripts.job_tasks import JobTasks
from contextrl.scripts.stages import Cache, digest, file_digest, model_digest, source_digest
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.scripted_runs import play_scripts
from contextrl.verl_ext.settings import JobConfig

TRAIN, HELD_OUT = "train", "held-out"


def mine_own_pairs(
    job: JobConfig, model: Path, tasks: JobTasks, cache: Cache, progress: Progress
) -> tuple[Path, bool]:
    """A folder with pair folders `train` and `held-out`, and whether it was cached.

    No task, and so no run, is on both sides: the held-out pairs come from the held-out tasks. Nor
    is a training pair about a task that RL trains on, whose patch it would show.
    """
    splits = tasks.splits
    assert splits is not None, "pairs of our own need a package's tasks"
    mined = [*(tasks.demonstrated() or splits.train), *splits.extra][: job.mining.max_tasks]
    inputs = {
        "model": model_digest(model),
        "tasks": file_digest(splits.folder),
        "mined": digest({"ids": [task.task_id for task in mined]}),
        "mining": dataclasses.asdict(job.mining),
        "limits": dataclasses.asdict(job.limits),
        "prompts": job.prompts,
        "thinking": job.enable_thinking,
        "code": source_digest(
            *PLAYING,
            "contextrl.pairs",
            "contextrl.scripts:job_pairs.py",
            "contextrl.verl_ext:scripted_runs.py",
        ),
    }
    held_out = [*splits.heldout_functions, *splits.heldout_mutants]
    return cache.folder(
        "pairs",
        inputs,
        lambda folder: _make(job, model, mined, held_out, folder, progress),
        resumable=True,
    )


def _make(
    job: JobConfig,
    model: Path,
    mined: Sequence[Task],
    held_out: Sequence[Task],
    folder: Path,
    progress: Progress,
) -> None:
    # Ungraded: which runs solved their task does not matter to the miner, the gold patch does.
    play(
        job,
        model,
        mined,
        folder / EPISODES,
        phase="mine",
        samples=job.mining.samples,
        temperature=job.mining.temperature,
        seed=job.mining.seed,
        graded=False,
        config={"model": model_digest(model), "mining": dataclasses.asdict(job.mining)},
        progress=progress,
    )
    runs = list(read_trajectories(folder / EPISODES))
    _mine(folder / TRAIN, runs, mined, job, split=TRAIN, limit=job.mining.max_train)
    with open_provider(run_id="mine", roots=job.sandbox.roots_folder) as provider:
        scripted = play_scripts(
            held_out,
            provider,
            prompt_set(job.prompts),
            job.limits,
            progress=lambda done: progress("scripted held-out runs", done, len(held_out)),
        )
    require_played(scripted)
    limit = job.mining.max_held_out
    _mine(folder / HELD_OUT, scripted, held_out, job, split=HELD_OUT, limit=limit)


def _mine(
    folder: Path,
    runs: Sequence[Trajectory],
    tasks: Sequence[Task],
    job: JobConfig,
    *,
    split: str,
    limit: int,
) -> None:
    result = mine(
        runs,
        tasks,
        seed=job.mining.seed,
        caps=Caps(per_file=limit, limit=limit),
    )
    if not result.pairs:
        last = result.stages[-1]
        raise ConfigError(
            f"expected {split} pairs from {len(tasks)} tasks, the cascade left none after "
            f"'{last.name}'; play more tasks (job.tasks.n_train) or samples (job.mining.samples)"
        )
    write_pairs(
        folder,
        result.pairs,
        miner=MINER,
        seed=job.mining.seed,
        stages=result.stages,
        split=split,
        overwrite=True,  # an interrupted stage is gone on with in the same folder
    )
