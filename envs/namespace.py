"""Sandboxes without a daemon: bubblewrap over an unpacked image root.

Each sandbox is one process tree in its own user, mount, pid, network, ipc and uts namespaces, over
an overlay whose upper half is a size-limited tmpfs. All of that is the kernel's: when the first
process ends, nothing is left to clean. It ends when its standard input closes, so when the driver
dies, however it dies.

Memory is limited for each process, and what is written to the tmpfs for all together. Where a
control group can be made (`control_groups`) it bounds both together, and the number of processes;
otherwise that number is the user's, over all sandboxes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import threading
from pathlib import Path

from contextrl.envs.bubblewrap import check_bubblewrap, command_line
from contextrl.envs.container import SandboxLimits
from contextrl.envs.control_groups import SPARE_PROCESSES, ControlGroup
from contextrl.envs.errors import SandboxError
from contextrl.envs.fifo import FIRST_PROCESS, FifoChannel, one_line
from contextrl.envs.kill import KILL_SCRIPT
from contextrl.envs.leases import new_folder
from contextrl.envs.repository import refresh
from contextrl.envs.sandbox_base import Closing, LiveSandboxes, ScriptedSandbox
from contextrl.envs.shell_line import BASH
from contextrl.envs.start_layers import StartLayer, StartLayers
from contextrl.envs.types import Limit, Task
from contextrl.envs.unpacked import UnpackedRoot, read_root

CONTROL_PREFIX = "contextrl-ns-"
"""Of folders in the temporary directory; the owner's lease follows (`leases`)."""


class NamespaceSandbox(ScriptedSandbox):
    """One task in one set of namespaces. Close it, or use it as a context manager."""

    def __init__(
        self,
        task: Task,
        files: Path,
        root: UnpackedRoot,
        limits: SandboxLimits,
        start: StartLayer | None = None,
    ) -> None:
        """With `start`, what the task's start script would do is there already."""
        super().__init__(f"ns-{secrets.token_hex(6)}", task, limits)
        self._layers = (files,) if start is None else (start.folder, files)
        self._root = root
        self._count = 0
        self._lock = threading.Lock()
        self._control = new_folder(CONTROL_PREFIX)
        self._control.chmod(0o755)
        self._mounts = self._control / "mounts"
        self._mounts.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        # What is written to the tmpfs is memory too, and counted as such.
        self._group = ControlGroup.make(
            memory_bytes=(limits.memory_mb + limits.disk_mb) << 20,
            max_processes=limits.pids + SPARE_PROCESSES,
        )
        self._counts = self._group.counts() if self._group else {}
        try:
            self._process = self._spawn()
            if start is None:
                self._set_up()
            else:
                self._shell.run(refresh(task), timeout_s=self._limits.setup_timeout_s)
                self.start_commit = start.commit
        except BaseException:
            self.close()
            raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self._control / "log").open("wb") as log:
            return subprocess.Popen(
                command_line(
                    self._layers,
                    self._root,
                    self._limits,
                    mounts=self._mounts,
                    control=self._control,
                    first_process=FIRST_PROCESS,
                    group=self._group,
                ),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )

    @property
    def upper(self) -> Path:
        """What differs from the image, while the sandbox runs; may need root to look into."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root{self._mounts}/u")

    def close(self) -> None:
        self.closed = True
        process, self._process = self._process, None
        self._shell.close()
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        if self._group is not None:
            self._group.remove()
        shutil.rmtree(self._control, ignore_errors=True)

    # What a `ShellHost` does.

    def open_shell(self) -> FifoChannel:
        return self._channel(list(BASH), merged=True)

    def kill(self, *, shell_pid: int, last_pid: int, signal: str) -> None:
        if self._group is not None and self._group.crowded:
            raise SandboxError("no process can be started in the sandbox to kill others from")
        arguments = ["kill", str(shell_pid), str(last_pid), "0", signal]
        channel = self._channel(["bash", "-c", KILL_SCRIPT, *arguments], merged=True)
        try:
            channel.read_to_end(4096, timeout_s=20.0)
        finally:
            channel.close()

    def revive(self) -> None:
        """Without a group there is no way: the overlay goes with the first process."""
        if self._group is None or not self._group.kill_all_but_first():
            raise SandboxError(f"sandbox {self.sandbox_id} has no process left to answer")

    def limit_reached(self) -> Limit | None:
        if self._group is not None:
            before, self._counts = self._counts, self._group.counts()
            for limit, count in self._counts.items():
                if count > before.get(limit, 0):
                    return limit
        with contextlib.suppress(SandboxError):
            code, stdout, _ = self._run("stat -f -c '%a' /", 100)
            if code == 0 and stdout.strip() == b"0":
                return Limit.DISK
        return None

    def _run(self, script: str, max_bytes: int, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        channel = self._channel(["bash", "--noprofile", "--norc", "-c", script], merged=False)
        try:
            channel.send(stdin)
            return channel.read_to_end(max_bytes, timeout_s=self._limits.setup_timeout_s)
        finally:
            channel.close()

    def _channel(self, command: list[str], *, merged: bool) -> FifoChannel:
        process = self._process
        if process is None or process.poll() is not None:
            raise SandboxError(f"sandbox {self.sandbox_id} has ended: {self._said()}")
        if self._group is not None and self._group.crowded:
            self.revive()  # the agent left no process to fork, and the first one must not fail to
        with self._lock:
            self._count += 1
            name = f"{self._count}"
        channel = FifoChannel(self._control, name, merged=merged)
        assert process.stdin is not None
        try:
            process.stdin.write(f"{name} {one_line(command)}\n".encode("utf-8", "surrogateescape"))
            process.stdin.flush()
        except OSError as error:
            channel.close()
            raise SandboxError(f"sandbox {self.sandbox_id} has ended: {self._said()}") from error
        return channel

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            text = (self._control / "log").read_text(errors="replace")
            return " ".join(text.split())[:300] or "nothing was said"
        return "nothing was said"


class NamespaceProvider(Closing):
    """Sandboxes from image roots below `roots`. Safe from many threads."""

    def __init__(self, roots: Path, *, limits: SandboxLimits | None = None) -> None:
        check_bubblewrap()
        self._roots = roots
        self._limits = limits or SandboxLimits()
        if self._limits.network:
            raise ValueError("namespace sandboxes have no network; set limits.network to false")
        self._live: LiveSandboxes[NamespaceSandbox] = LiveSandboxes()
        self._starts = StartLayers(CONTROL_PREFIX)

    def start(self, task: Task) -> NamespaceSandbox:
        files, root = read_root(self._roots, task.image)
        layer = self._starts.find(task)
        sandbox = NamespaceSandbox(task, files, root, self._limits, layer)
        if layer is None:
            self._starts.keep(task, sandbox.upper, sandbox.start_commit)
        return self._live.add(sandbox)

    def close(self) -> None:
        for sandbox in self._live.end():
            sandbox.close()
        self._starts.close()
