"""What a replay needs beside the record: the task, from a file that we trust, and a sandbox of it.

A record's own image name is not used: a file from somebody else must not choose what is pulled.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from contextrl.agents.types import Trajectory
from contextrl.envs.tasks import read_tasks
from contextrl.envs.types import Grader, SandboxProvider, Task
from contextrl.scripts.console import ScriptError


class TaskBook:
    """Tasks by id."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._tasks = {task.task_id: task for path in files for task in read_tasks(path)}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._tasks

    def of(self, trajectory: Trajectory) -> Task:
        task = self._tasks.get(trajectory.task_id)
        if task is None:
            read = ", ".join(map(str, self.files)) or "no task file"
            raise ScriptError(
                f"{trajectory.trajectory_id}: expected task {trajectory.task_id} in {read}, found "
                "none; pass the run's task file with --tasks"
            )
        return task


def tasks_of_run(path: Path) -> tuple[Path, ...]:
    """Task files that the training run around `path` names and that still exist."""
    folder = path if path.is_dir() else path.parent
    for place in (folder, folder.parent):
        config = place / "config.yaml"
        if config.is_file():
            return tuple(file for file in _named_in(config) if file.is_file())
    return ()


def _named_in(config: Path) -> Iterator[Path]:
    try:
        from omegaconf import OmegaConf  # the training set-up has it, a bare installation has not
    except ImportError:
        return
    tasks = OmegaConf.select(OmegaConf.load(config), "job.tasks")
    if tasks is None:
        return
    if tasks.get("train"):
        yield Path(tasks.train)
    yield from (Path(file) for file in (tasks.get("validate") or {}).values())


class Sandboxes:
    """Docker, connected to when the first sandbox is asked for. Use as a context manager."""

    def __init__(self, repos: Path | None = None) -> None:
        self._repos = repos
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._provider: SandboxProvider | None = None
        self._images: dict[str, str] = {}

    def provider(self) -> SandboxProvider:
        from contextrl.envs.docker import DockerProvider
        from contextrl.envs.engine import connect

        with self._lock:
            if self._provider is None:
                self._client = connect()
                self._provider = self._stack.enter_context(DockerProvider(self._client))
            return self._provider

    def ready(self, task: Task) -> Task:
        from contextrl.envs.images import ensure_image

        self.provider()
        with self._lock:
            if task.image not in self._images:
                self._images[task.image] = ensure_image(self._client, task, repos=self._repos)
            return task.model_copy(update={"image": self._images[task.image]})

    def grader(self) -> Grader:
        from contextrl.envs.grading import DockerGrader

        return DockerGrader(self.provider())

    def __enter__(self) -> Sandboxes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
