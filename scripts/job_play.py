"""Episodes of the job's own, before training: the warmed-up policy plays tasks in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextrl.agents.batch import BatchReport, EpisodeRequest, run_batch
from contextrl.agents.episode import EpisodeKey, Witness
from contextrl.agents.prompting import prompt_set
from contextrl.agents.rollout import rollout
from contextrl.agents.store import RunStore
from contextrl.agents.tokens import TokenPolicy
from contextrl.agents.types import Trajectory
from contextrl.envs.container import SandboxLimits
from contextrl.envs.grading import DockerGrader
from contextrl.envs.places import open_provider
from contextrl.envs.types import Task
from contextrl.verl_ext.local_server import LocalTokenServer
from contextrl.verl_ext.settings import JobConfig

Progress = Callable[[str, int, int], None]

EPISODES = "episodes"
"""The folder that a stage keeps its episodes in."""


def play(
    job: JobConfig,
    model: Path,
    tasks: Sequence[Task],
    folder: Path,
    *,
    phase: str,
    samples: int,
    temperature: float,
    seed: int,
    graded: bool,
    config: Mapping[str, Any],
    progress: Progress,
) -> None:
    """`samples` episodes of each task are in the run folder `folder`, whose config is `config`."""
    prompts, sandbox = prompt_set(job.prompts), job.sandbox
    limits = SandboxLimits(memory_mb=sandbox.memory_mb, cpus=sandbox.cpus, pids=sandbox.pids)
    server = LocalTokenServer.from_pretrained(
        str(model),
        max_context_tokens=job.limits.max_context_tokens,
        temperature=temperature,
        seed=seed,
    )
    policy = TokenPolicy("warm-up", server, server.tokenizer)
    requests = [
        EpisodeRequest(task, EpisodeKey(phase=phase, sample=sample))
        for task in tasks
        for sample in range(samples)
    ]
    with open_provider(
        limits=limits, run_id=phase, recycle=sandbox.recycle, roots=sandbox.roots_folder
    ) as provider:
        grader = DockerGrader(provider, at_once=sandbox.gradings) if graded else None

        def one(request: EpisodeRequest, cancel: threading.Event, witness: Witness) -> Trajectory:
            return rollout(
                request.task,
                provider,
                policy,
                prompts,
                job.limits,
                grader=grader,
                grade_unsubmitted=job.grade_unsubmitted,
                key=request.key,
                cancel=cancel,
                witness=witness,
            )

        def on_progress(report: BatchReport, _: Trajectory | None) -> None:
            progress("episodes", report.finished, report.requested)

        with RunStore.open(folder, config) as store:
            run_batch(
                requests,
                one,
                store,
                workers=sandbox.concurrency,
                on_progress=on_progress,
                on_interrupt=provider.close,
            )
            store.finish()
    server.close()
