"""Episodes of the job's own, before training: the warmed-up policy plays tasks in this process.

What comes of them is cached, so they must have been played: where sandboxes fail the job stops.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextrl.agents.batch import BatchReport, EpisodeRequest, run_batch
from contextrl.agents.episode import EpisodeKey, Witness
from contextrl.agents.prompting import prompt_set
from contextrl.agents.rollout import rollout
from contextrl.agents.store import RunStore, read_trajectories
from contextrl.agents.tokens import TokenPolicy
from contextrl.agents.types import Trajectory
from contextrl.envs.container import SandboxLimits
from contextrl.envs.grading import CachingGrader, DockerGrader
from contextrl.envs.places import open_provider
from contextrl.envs.types import Task
from contextrl.verl_ext.errors import VerlExtError
from contextrl.verl_ext.local_server import LocalTokenServer
from contextrl.verl_ext.settings import JobConfig

Progress = Callable[[str, int, int], None]

EPISODES = "episodes"
"""The folder that a stage keeps its episodes in."""

MAX_EXCLUDED_FRAC = 0.05
"""A sandbox fails now and then; more than this is a failure of the stage."""

PLAYING = (
    "contextrl.agents",
    "contextrl.envs",
    "contextrl.scripts:job_play.py",
    *(
        f"contextrl.verl_ext:{name}.py"
        for name in (
            "generation",
            "lean_decoder",
            "local_server",
            "prompt_memory",
            "image_attention",
            "quick_norms",
            "row_cache",
            "sampling",
            "scorer_hf",
            "vision",
        )
    ),
)
"""For `source_digest`: the code that decides how such an episode goes."""


class NotPlayedError(VerlExtError):
    """Too few of a stage's episodes say anything about the policy."""


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
    """`samples` episodes of each task are in the run folder `folder`, whose config is `config`.

    Those that are there already are kept. Raises `NotPlayedError` if an episode met a bug or too
    many of them were excluded.
    """
    prompts, sandbox = prompt_set(job.prompts), job.sandbox
    limits = SandboxLimits(memory_mb=sandbox.memory_mb, cpus=sandbox.cpus, pids=sandbox.pids)
    server = LocalTokenServer.from_pretrained(
        str(model),
        max_context_tokens=job.limits.max_context_tokens,
        temperature=temperature,
        seed=seed,
    )
    policy = TokenPolicy("warm-up", server, server.tokenizer, template_kwargs=job.template_kwargs)
    requests = [
        EpisodeRequest(task, EpisodeKey(phase=phase, sample=sample))
        for task in tasks
        for sample in range(samples)
    ]
    with open_provider(
        limits=limits, run_id=phase, recycle=sandbox.recycle, roots=sandbox.roots_folder
    ) as provider:
        grader = CachingGrader(DockerGrader(provider, at_once=sandbox.gradings)) if graded else None

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

        with RunStore.open(folder, config, resume=True) as store:
            report = run_batch(
                requests,
                one,
                store,
                workers=sandbox.concurrency,
                on_progress=on_progress,
                on_interrupt=provider.close,
            )
            store.finish()
    server.close()
    if report.crashed:
        raise NotPlayedError(
            f"expected {len(requests)} episodes, found {len(report.crashed)} that met a bug, the "
            f"first of them {report.crashed[0]}: its traceback is above; what was played is kept"
        )
    require_played(read_trajectories(folder))


def require_played(episodes: Iterable[Trajectory]) -> None:
    """Raises `NotPlayedError` unless nearly all of them say something about their policy."""
    failures: Counter[str] = Counter()
    n_episodes = 0
    for episode in episodes:
        n_episodes += 1
        if episode.excluded:
            failures[episode.grading_error or episode.stop_detail] += 1
    n_excluded = failures.total()
    if n_excluded > MAX_EXCLUDED_FRAC * n_episodes:
        reason, count = failures.most_common(1)[0]
        raise NotPlayedError(
            f"expected at most {MAX_EXCLUDED_FRAC:.0%} of {n_episodes} episodes to fail for their "
            f"infrastructure, found {n_excluded}, {count} of them with: {reason[:300]}; mend that "
            "and start again: the others are not played anew"
        )
