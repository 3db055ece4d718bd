"""Everything one process needs to play episodes: tasks, sandboxes, grader, limits, a store.

Built once per process from the resolved configuration, because veRL makes a new agent loop
object for every episode. The owner of a process ends by closing it; a killed one's containers
are reaped by their labels.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextrl.agents.episode import EpisodeKey
from contextrl.agents.errors import RunStoreError
from contextrl.agents.prompting import PromptSet, prompt_set
from contextrl.agents.rollout import rollout
from contextrl.agents.store import RunStore
from contextrl.agents.types import Policy, Trajectory
from contextrl.envs.cleanup import run_label
from contextrl.envs.container import SandboxLimits
from contextrl.envs.grading import CachingGrader, DockerGrader
from contextrl.envs.places import open_provider
from contextrl.envs.supply import SupplyingProvider
from contextrl.envs.tasks import read_tasks
from contextrl.envs.types import Grader, SandboxProvider, Task
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import JobConfig

EPISODES_FOLDER = "episodes"
"""Below the run folder."""
FATAL = "fatal.txt"
"""Below it too: why the training must end, see `end_training`."""


@dataclass(frozen=True, slots=True)
class Episodes:
    job: JobConfig
    tasks: Mapping[str, Task]
    provider: SandboxProvider
    grader: Grader
    prompts: PromptSet
    store: RunStore
    threads: ThreadPoolExecutor
    """As wide as sandboxes may run at once; an episode holds a thread from start to grade."""

    @classmethod
    def open(cls, job: JobConfig) -> Episodes:
        """Connects to Docker, if it is there, and reads every task file.

        Raises `EnvsError` or `ConfigError`.
        """
        run_dir = Path(job.run_dir)
        limits = SandboxLimits(
            memory_mb=job.sandbox.memory_mb, cpus=job.sandbox.cpus, pids=job.sandbox.pids
        )
        tasks = _tasks(job)
        provider = open_provider(
            limits=limits,
            run_id=run_label(run_dir),
            recycle=job.sandbox.recycle,
            images=[task.image for task in tasks.values()],
            image_budget_gb=job.sandbox.image_budget_gb,
            repos=job.sandbox.repos_folder,
            roots=job.sandbox.roots_folder,
            deployment=Path(job.sandbox.deployment) if job.sandbox.deployment else None,
        )
        return cls(
            job=job,
            tasks=tasks,
            provider=provider,
            grader=CachingGrader(DockerGrader(provider, at_once=job.sandbox.gradings)),
            prompts=prompt_set(job.prompts),
            store=RunStore.open(run_dir / EPISODES_FOLDER, {"run": run_dir.name}, resume=True),
            threads=ThreadPoolExecutor(job.sandbox.concurrency, thread_name_prefix="episode"),
        )

    @classmethod
    def of_this_process(cls, config: Any) -> Episodes:
        """Opened at the first call; `config` is the whole resolved configuration."""
        with _lock:
            if not _of_this_process:
                _of_this_process.append(cls.open(JobConfig.from_mapping(config.job)))
            return _of_this_process[0]

    def expect(self, task_id: str) -> None:
        """An episode of this task will be played soon: its image may come meanwhile."""
        if task_id in self.tasks and isinstance(self.provider, SupplyingProvider):
            self.provider.prefetch([self.tasks[task_id]])

    def play(
        self,
        policy: Policy,
        *,
        task_id: str,
        phase: str,
        train_step: int,
        sample: int,
    ) -> Trajectory:
        """One episode, graded and stored."""
        if task_id not in self.tasks:
            raise ConfigError(
                f"expected task {task_id!r} in the files of job.tasks, found it in none of them"
            )
        with self.store.journal() as journal:
            trajectory = rollout(
                self.tasks[task_id],
                self.provider,
                policy,
                self.prompts,
                self.job.limits,
                grader=self.grader,
                grade_unsubmitted=self.job.grade_unsubmitted,
                key=EpisodeKey(phase=phase, train_step=train_step, sample=sample),
                witness=journal,
            )
            try:
                # Played again by a resumed step, it takes the earlier one's place: what is stored
                # is what the trainer gets.
                self.store.append(trajectory)
            except RunStoreError as error:
                end_training(Path(self.job.run_dir), error)
                raise
        return trajectory

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)
        self.provider.close()
        self.store.close()


def end_training(run_dir: Path, error: Exception) -> None:
    """The job that watches the training ends it and says why.

    For what no other episode can escape either. veRL would go on without the episodes that failed.
    On a full disk the file is there and empty, which says it as well.
    """
    with contextlib.suppress(OSError):
        (run_dir / FATAL).write_text(" ".join(str(error).split()), encoding="utf-8")


_lock = threading.Lock()
_of_this_process: list[Episodes] = []


def _tasks(job: JobConfig) -> dict[str, Task]:
    files = [job.tasks.train, *job.tasks.validate.values()]
    tasks = [task for file in files if file is not None for task in read_tasks(Path(file))]
    if not tasks:
        raise ConfigError("expected tasks in job.tasks.train or job.tasks.validate, found none")
    return {task.task_id: task for task in tasks}
