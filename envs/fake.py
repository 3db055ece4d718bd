"""A sandbox for tests: scripted replies, and for the rest a real bash in a temporary folder.

It isolates nothing: give it only commands that a test wrote. What it shares with the real ones is
the shell's protocol, the start state and the diff, so that one contract suite holds for all.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from contextrl.envs.errors import SandboxError, TaskSetupError
from contextrl.envs.kill import KILL_SCRIPT
from contextrl.envs.repository import read_diff, start_script
from contextrl.envs.sandbox_base import Closing
from contextrl.envs.shell import SHELL_ENVIRONMENT, PersistentShell
from contextrl.envs.shell_line import BASH
from contextrl.envs.types import ExecResult, Task

Reply = ExecResult | str | SandboxError
"""A result, or the output of a command that succeeds, or a failure to raise."""
Replies = Mapping[str, Reply] | Callable[[str], Reply | None]
"""By the exact command. What is absent or None runs for real."""
Files = Mapping[str, str | bytes]


class FakeProvider:
    """Every sandbox starts from `files`, committed under the task's workdir."""

    def __init__(
        self,
        files: Files | None = None,
        *,
        replies: Replies | None = None,
        start_error: SandboxError | None = None,
        max_output_bytes: int = 128 * 1024,
    ) -> None:
        self.files: Files = files or {"README": "A fake repository.\n"}
        self.replies: Replies = replies or {}
        self.start_error = start_error
        self.max_output_bytes = max_output_bytes
        self.started: list[FakeSandbox] = []
        self._lock = threading.Lock()

    def start(self, task: Task) -> FakeSandbox:
        if self.start_error is not None:
            raise self.start_error
        sandbox = FakeSandbox(
            task, self.files, replies=self.replies, max_output_bytes=self.max_output_bytes
        )
        with self._lock:
            self.started.append(sandbox)
        return sandbox

    def close(self) -> None:
        for sandbox in self.started:
            sandbox.close()


class FakeSandbox(Closing):
    """Real only once something is asked that no reply answers: until then it costs nothing."""

    def __init__(
        self,
        task: Task,
        files: Files,
        *,
        replies: Replies | None = None,
        max_output_bytes: int = 128 * 1024,
    ) -> None:
        self.task = task
        self.sandbox_id = f"fake-{id(self):x}"
        self.commands: list[str] = []
        self.closed = False
        self._files = files
        self._replies: Replies = replies or {}
        self._max_output_bytes = max_output_bytes
        self._folder: _Folder | None = None
        if task.setup_patch:
            self._real()  # a patch that does not apply fails the start, as it would for real

    def exec(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        self._check_open()
        self.commands.append(command)
        replies = self._replies
        reply = replies(command) if callable(replies) else replies.get(command)
        if isinstance(reply, SandboxError):
            raise reply
        if isinstance(reply, str):
            return ExecResult(output=reply, exit_code=0, seconds=0.0)
        return reply or self._real().exec(command, timeout_s, stdin)

    @property
    def on_output(self) -> Callable[[bytes], None] | None:
        """Hears what a command prints while it runs, from the thread that called `exec`."""
        return self._real().shell.on_output

    @on_output.setter
    def on_output(self, listener: Callable[[bytes], None] | None) -> None:
        self._real().shell.on_output = listener

    def read_file(self, path: str) -> bytes:
        self._check_open()
        file = Path(self._real().inside(path))
        if not file.is_file():
            raise FileNotFoundError(f"{path}: no such file in the sandbox")
        return file.read_bytes()

    def write_file(self, path: str, content: bytes) -> None:
        self._check_open()
        if not path.startswith("/"):
            raise ValueError(f"path must be absolute, got {path}")
        file = Path(self._real().inside(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def diff(self) -> str:
        self._check_open()
        folder = self._real()
        return read_diff(lambda script: folder.run(script), self.task, folder.start_commit)

    def close(self) -> None:
        self.closed = True
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _real(self) -> _Folder:
        if self._folder is None:
            self._folder = _Folder(self.task, self._files, self._max_output_bytes)
        return self._folder

    def _check_open(self) -> None:
        if self.closed:
            raise SandboxError(f"sandbox {self.sandbox_id} is closed")


class _Folder:
    """The temporary folder, which stands for the workdir and for /tmp, and its shell."""

    def __init__(self, task: Task, files: Files, max_output_bytes: int) -> None:
        self._root = tempfile.mkdtemp(prefix="contextrl-fake-")
        self._names = {task.workdir: f"{self._root}/repository", "/tmp": f"{self._root}/tmp"}
        self._channel: _PipeChannel | None = None
        repository = Path(self._names[task.workdir])
        for path in self._names.values():
            Path(path).mkdir()
        for name, content in files.items():
            file = repository / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.shell = PersistentShell(
            self,
            setup=task.shell_setup,
            workdir=str(repository),
            max_output_bytes=max_output_bytes,
        )
        commit = f"cd {task.workdir} && git init -q -b main && git add -A && git commit -qm Initial"
        code, stdout, stderr = self.run(f"{commit}\n{start_script(task)}")
        if code != 0:
            self.close()
            said = " ".join((stdout + stderr).decode(errors="replace").split())[-300:]
            raise TaskSetupError(f"task {task.task_id}: {said}")
        self.start_commit = stdout.decode().strip().splitlines()[-1]

    def inside(self, text: str) -> str:
        """The text with the sandbox's paths replaced by the real ones."""
        names = "|".join(map(re.escape, self._names))
        return re.sub(
            rf"(?<![\w./-])(?:{names})(?![\w.-])", lambda match: self._names[match[0]], text
        )

    def _outside(self, text: str) -> str:
        for name, real in self._names.items():
            text = text.replace(real, name)
        return text

    def exec(self, command: str, timeout_s: float, stdin: bytes) -> ExecResult:
        result = self.shell.run(self.inside(command), timeout_s=timeout_s, stdin=stdin)
        return ExecResult(
            output=self._outside(result.output),
            exit_code=result.exit_code,
            seconds=result.seconds,
            timed_out=result.timed_out,
            dropped_bytes=result.dropped_bytes,
            limit=result.limit,
        )

    def run(self, script: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            ["bash", "-c", self.inside(script)],
            capture_output=True,
            check=False,
            env=self._environment(),
        )
        return done.returncode, done.stdout, done.stderr

    def open_shell(self) -> _PipeChannel:
        self._channel = _PipeChannel(self._environment())
        return self._channel

    def kill(self, *, shell_pid: int, last_pid: int, signal: str) -> None:
        assert self._channel is not None
        session = str(self._channel.session)  # never beyond it: these are the host's processes
        arguments = ["kill", str(shell_pid), str(last_pid), session, signal]
        subprocess.run(["bash", "-c", KILL_SCRIPT, *arguments], check=False)

    def revive(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def limit_reached(self) -> None:
        """Nothing is limited here but time."""

    def close(self) -> None:
        if self._channel is not None:  # what its commands left running
            self.kill(shell_pid=self._channel.session, last_pid=0, signal="KILL")
        self.shell.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        return {
            **SHELL_ENVIRONMENT,
            "PATH": path,
            "HOME": self._root,
            "TMPDIR": self._names["/tmp"],
        }


class _PipeChannel:
    """A bash of its own session on this machine."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            BASH,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.session = self._process.pid

    def send(self, content: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(content)
            self._stdin.flush()

    def receive(self, timeout_s: float) -> bytes | None:
        ready, _, _ = select.select([self._stdout], [], [], timeout_s)
        return os.read(self._stdout.fileno(), 256 * 1024) if ready else None

    def exit_code(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(0.01)
            return code if code >= 0 else 128 - code
        return None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
