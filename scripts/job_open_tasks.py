"""Stage `open`: of the candidates RL trains on tasks that the policy solves sometimes.

GRPO learns nothing from a group whose episodes all fail, nor from one whose episodes all succeed.
Half of the bugs of a package are such for a tiny policy, however often they come back. So each
candidate is played a few times first. What is measured before and after training are new episodes:
those that chose a task would flatter it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from contextrl.agents.store import read_trajectories
from contextrl.envs.tasks import write_tasks
from contextrl.envs.types import Task
from contextrl.scripts.job_play import EPISODES, PLAYING, Progress, play
from contextrl.scripts.job_tasks import JobTasks
from contextrl.scripts.stages import Cache, digest, model_digest, source_digest
from contextrl.verl_ext.settings import JobConfig

CHOSEN = "train.jsonl"


def choose_open_tasks(
    job: JobConfig, model: Path, tasks: JobTasks, cache: Cache, progress: Progress
) -> tuple[Path, bool]:
    """A task file of `job.tasks.train_limit` of the candidates, and whether it was cached."""
    candidates, samples = tasks.candidates(), job.tasks.candidate_samples
    limit = job.tasks.train_limit or len(candidates)
    settings = {
        "model": model_digest(model),
        "candidates": digest({"ids": [task.model_dump_json() for task in candidates]}),
        "samples": samples,
        "limit": limit,
        "seed": job.seed,
        "limits": dataclasses.asdict(job.limits),
        "prompts": job.prompts,
        "thinking": job.enable_thinking,
        "graded_unsubmitted": job.grade_unsubmitted,
    }
    code = source_digest(*PLAYING, "contextrl.scripts:job_open_tasks.py")

    def make(folder: Path) -> None:
        play(
            job,
            model,
            candidates,
            folder / EPISODES,
            phase="open",
            samples=samples,
            temperature=1.0,
            seed=job.seed,
            graded=True,
            config=settings,
            progress=progress,
        )
        solved = Counter(
            episode.task_id
            for episode in read_trajectories(folder / EPISODES)
            if episode.reward is not None and episode.reward.resolved
        )
        write_tasks(folder / CHOSEN, open_first(candidates, solved, samples)[:limit])

    folder, cached = cache.folder("open", {**settings, "code": code}, make, resumable=True)
    return folder / CHOSEN, cached


def open_first(tasks: Sequence[Task], solved: Counter[str], samples: int) -> list[Task]:
    """Tasks solved in some of `samples` episodes, then those never solved, then those always."""

    def rank(task: Task) -> int:
        count = solved[task.task_id]
        return 0 if 0 < count < samples else 1 if count == 0 else 2

    return sorted(tasks, key=rank)
