"""What sandboxes behind a persistent shell share, whatever holds them; and their providers."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from contextrl.envs.container import SandboxLimits
from contextrl.envs.errors import SandboxError, TaskSetupError
from contextrl.envs.repository import read_diff, start_script
from contextrl.envs.script_files import diff_runner, read_file, write_file
from contextrl.envs.shell import PersistentShell, ShellHost
from contextrl.envs.types import ExecResult, Task


class Closing(abc.ABC):
    """Closed by leaving its `with` block."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ShellSandbox(Closing):
    """One task and its shell. A subclass knows where they are, and sets `closed` on its end."""

    def __init__(
        self, sandbox_id: str, task: Task, limits: SandboxLimits, host: ShellHost | None = None
    ) -> None:
        """`host` is where shells are opened; None for this object itself."""
        self.sandbox_id = sandbox_id
        self.task = task
        self.closed = False
        self.start_commit = ""
        self._limits = limits
        self._shell = PersistentShell(
            host or self,  # type: ignore[arg-type]
            setup=task.shell_setup,
            workdir=task.workdir,
            max_output_bytes=limits.max_output_bytes,
        )

    def _set_up(self) -> None:
        """The task's start state is made, and its commit known. Raises `TaskSetupError`."""
        result = self._shell.run(
            f"(\n{start_script(self.task)}\n)", timeout_s=self._limits.setup_timeout_s
        )
        lines = result.output.strip().splitlines() or ["no output"]
        if result.exit_code != 0:
            said = "took too long" if result.timed_out else " ".join(lines[-3:])
            raise TaskSetupError(f"task {self.task.task_id}, image {self.task.image}: {said}")
        self.start_commit = lines[-1]

    def exec(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        self._check_open()
        return self._shell.run(command, timeout_s=timeout_s, stdin=stdin)

    @property
    def on_output(self) -> Callable[[bytes], None] | None:
        """Hears what a command prints while it runs, from the thread that called `exec`."""
        return self._shell.on_output

    @on_output.setter
    def on_output(self, listener: Callable[[bytes], None] | None) -> None:
        self._shell.on_output = listener

    def _check_open(self) -> None:
        if self.closed:
            raise SandboxError(f"sandbox {self.sandbox_id} is closed")


class ScriptedSandbox(ShellSandbox):
    """A sandbox whose files are read and written by scripts in it, for want of another way."""

    @abc.abstractmethod
    def _run(self, script: str, max_bytes: int, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """A fresh bash: exit code, stdout cut at one byte over `max_bytes`, and stderr."""

    def read_file(self, path: str) -> bytes:
        """Raises `FileNotFoundError` if there is none, `ValueError` if it is too large."""
        self._check_open()
        return read_file(self._run, path, self._limits.max_file_bytes)

    def write_file(self, path: str, content: bytes) -> None:
        """Parent folders are made; a file that exists keeps its mode, and is replaced whole."""
        self._check_open()
        write_file(self._run, path, content)

    def diff(self) -> str:
        """Empty, with a warning in the log, if the agent made the repository unreadable."""
        self._check_open()
        run = diff_runner(self._run, self._limits.max_diff_bytes)
        return read_diff(run, self.task, self.start_commit)


S = TypeVar("S", bound=ShellSandbox)


class LiveSandboxes(Generic[S]):
    """The open sandboxes of a provider. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[S] = set()
        self.ended = False

    def add(self, sandbox: S) -> S:
        """Raises `SandboxError`, and closes the sandbox, if the provider was closed meanwhile."""
        with self._lock:
            ended = self.ended
            self._live = {old for old in self._live if not old.closed} | {sandbox}
        if ended:
            sandbox.close()
            raise SandboxError("the sandbox provider was closed while a sandbox started")
        return sandbox

    def now(self) -> list[S]:
        with self._lock:
            return [sandbox for sandbox in self._live if not sandbox.closed]

    def end(self) -> list[S]:
        """Nothing can be added any more; what is left to close."""
        with self._lock:
            self.ended = True
            live, self._live = self._live, set()
        return list(live)
