"""Docker sandboxes: a locked-down container, a persistent shell in it, and its own end assured.

Nothing is opened that a task did not ask for: no network, no capability, no new privileges, bounded
memory, cpu and processes. Every container carries its run, host, owner process and deadline as
labels, so that `cleanup.reap` can remove what a killed driver left behind.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import secrets
import shlex
import socket
import tarfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from contextrl.envs.cleanup import LABEL_DEADLINE, LABEL_HOST, LABEL_PID, LABEL_RUN, owner_label
from contextrl.envs.engine import ExecChannel, connect, engine_boundary
from contextrl.envs.errors import ImageError, SandboxError, TaskSetupError
from contextrl.envs.repository import diff_script, start_script
from contextrl.envs.shell import BASH, KILL_SCRIPT, SHELL_ENVIRONMENT, PersistentShell
from contextrl.envs.types import ExecResult, Task

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one sandbox may use."""

    memory_mb: int = 2048
    """Swap is off: a command that needs more is killed by the kernel."""
    cpus: float = 2.0
    pids: int = 512
    shm_mb: int = 64
    open_files: int = 4096
    max_output_bytes: int = 128 * 1024
    """Of one command; the middle of a longer output is cut."""
    max_file_bytes: int = 64 * 1024 * 1024
    """`read_file` refuses more."""
    max_diff_bytes: int = 16 * 1024 * 1024
    """A longer diff is cut, so that grading rejects it."""
    setup_timeout_s: float = 120.0
    lease_s: float = 6 * 3600.0
    """After this long anyone may remove the container."""
    capabilities: tuple[str, ...] = ()
    """Added back to none. Images that run as root over files of another user may need
    DAC_OVERRIDE; nothing in SWE-Gym, SWE-bench or SWE-smith images does."""
    network: bool = False
    """Egress, through Docker's default bridge. Off unless a task cannot do without it."""

    def __post_init__(self) -> None:
        for name in ("memory_mb", "cpus", "pids", "max_output_bytes", "lease_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"sandbox.{name} must be positive, got {getattr(self, name)}")


class _Container:
    """A running container without a task: what the warm pool holds. Implements `ShellHost`."""

    def __init__(
        self, client: DockerClient, image: str, limits: SandboxLimits, run_id: str
    ) -> None:
        self._client = client
        self._api = client.api
        self._limits = limits
        with engine_boundary(f"starting a sandbox of image {image}"):
            self.user: str = _image_user(client, image)
            self.id: str = self._api.create_container(
                image,
                # Root owns the process that keeps the container up, so `kill -9 -1` misses it.
                entrypoint=["sleep"],
                command=["infinity"],
                user="0:0",
                network_disabled=not limits.network,
                labels={
                    LABEL_RUN: run_id,
                    LABEL_HOST: socket.gethostname(),
                    LABEL_PID: owner_label(os.getpid()),
                    LABEL_DEADLINE: str(int(time.time() + limits.lease_s)),
                },
                host_config=self._api.create_host_config(
                    network_mode=None if limits.network else "none",
                    init=True,
                    mem_limit=f"{limits.memory_mb}m",
                    memswap_limit=f"{limits.memory_mb}m",
                    nano_cpus=int(limits.cpus * 1e9),
                    pids_limit=limits.pids,
                    shm_size=f"{limits.shm_mb}m",
                    ulimits=[
                        {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
                        {"Name": "core", "Soft": 0, "Hard": 0},
                    ],
                    cap_drop=["ALL"],
                    cap_add=list(limits.capabilities) or None,
                    security_opt=["no-new-privileges:true"],
                    log_config={"Type": "none"},
                ),
            )["Id"]
        try:
            with engine_boundary(f"starting a sandbox of image {image}"):
                self._api.start(self.id)
        except SandboxError:
            self.remove()
            raise

    def channel(self, command: list[str]) -> ExecChannel:
        """A process in the container, which is started again if its main process was killed."""
        try:
            return self._exec(command)
        except SandboxError:
            self.revive()
            return self._exec(command)

    def _exec(self, command: list[str]) -> ExecChannel:
        return ExecChannel(
            self._client, self.id, command, user=self.user, environment=dict(SHELL_ENVIRONMENT)
        )

    def open_shell(self) -> ExecChannel:
        return self.channel(list(BASH))

    def kill(self, *, shell_pid: int, last_pid: int, signal: str) -> None:
        arguments = ["kill", str(shell_pid), str(last_pid), "0", signal]
        channel = self._exec(["bash", "-c", KILL_SCRIPT, *arguments])
        try:
            deadline = time.monotonic() + 20.0
            while channel.receive(1.0) != b"":
                if channel.exit_code() is not None:
                    break
                if time.monotonic() > deadline:
                    raise SandboxError("the sandbox did not answer a kill within 20 s")
        finally:
            channel.close()

    def revive(self) -> None:
        with engine_boundary(f"restarting sandbox {self.id[:12]}"):
            self._api.restart(self.id, timeout=0)

    def run(self, script: str, *, max_bytes: int, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Exit code, stdout (cut at one byte over `max_bytes`) and stderr of a fresh bash.

        Where the agent left no process to fork, all of its processes are killed first.
        """
        result = self._run_once(script, max_bytes, timeout_s)
        if result[0] != 0 and b"Resource temporarily unavailable" in result[2]:
            self.revive()
            result = self._run_once(script, max_bytes, timeout_s)
        return result

    def _run_once(self, script: str, max_bytes: int, timeout_s: float) -> tuple[int, bytes, bytes]:
        channel = self.channel(["bash", "--noprofile", "--norc", "-c", script])
        streams = {1: bytearray(), 2: bytearray()}
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                frame = channel.receive_frame(1.0)
                if frame is not None and frame[0] == 0:
                    break
                if frame is not None:
                    room = max_bytes + 1 - len(streams[frame[0]])
                    streams[frame[0]] += frame[1][:room]
                elif channel.exit_code() is not None:
                    break
                if time.monotonic() > deadline:
                    return -1, bytes(streams[1]), b"timed out"
            code = channel.exit_code()
        finally:
            channel.close()
        return -1 if code is None else code, bytes(streams[1]), bytes(streams[2])

    def remove(self) -> None:
        """Killed and deleted, or already gone. Waits for nothing that runs inside."""
        from docker.errors import APIError, NotFound

        try:
            with engine_boundary(f"removing sandbox {self.id[:12]}"):
                try:
                    self._api.remove_container(self.id, force=True, v=True)
                except NotFound:
                    pass
                except APIError as error:
                    if error.status_code != 409:  # 409: its removal is already under way
                        raise
        except SandboxError as error:
            logger.warning("%s; `contextrl clean` removes it later", error)


class DockerSandbox:
    """One task in one container. Close it, or use it as a context manager."""

    def __init__(
        self, client: DockerClient, container: _Container, task: Task, limits: SandboxLimits
    ) -> None:
        """The sandbox is in the task's start state. The container is ours from here on."""
        self.sandbox_id = container.id[:12]
        self.task = task
        self._client = client
        self._container = container
        self._limits = limits
        self._closed = False
        self._shell = PersistentShell(
            container,
            setup=task.shell_setup,
            workdir=task.workdir,
            max_output_bytes=limits.max_output_bytes,
        )
        try:
            self.start_commit = self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> str:
        result = self._shell.run(
            f"(\n{start_script(self.task)}\n)", timeout_s=self._limits.setup_timeout_s
        )
        lines = result.output.strip().splitlines() or ["no output"]
        if result.exit_code != 0:
            said = "took too long" if result.timed_out else " ".join(lines[-3:])
            raise TaskSetupError(f"task {self.task.task_id}, image {self.task.image}: {said}")
        return lines[-1]

    def exec(self, command: str, *, timeout_s: float) -> ExecResult:
        self._check_open()
        return self._shell.run(command, timeout_s=timeout_s)

    def read_file(self, path: str) -> bytes:
        """Raises `FileNotFoundError` if there is none, `ValueError` if it is too large.

        The engine reads it, not a process inside: nothing in the sandbox can answer for it.
        """
        self._check_open()
        from docker.errors import NotFound

        limit = self._limits.max_file_bytes
        with engine_boundary(f"reading {path}"):
            try:
                chunks, _ = self._client.api.get_archive(self._container.id, path)
            except NotFound as error:
                if "No such container" in str(error):
                    raise
                raise FileNotFoundError(f"{path}: no such file in the sandbox") from error
            archive = bytearray()
            for chunk in chunks:
                archive += chunk
                if len(archive) > limit + 1024 * 1024:
                    raise ValueError(f"{path}: larger than {limit} bytes")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            stream = tar.extractfile(member) if member is not None and member.isreg() else None
            if stream is None:
                raise FileNotFoundError(f"{path}: not a regular file")
            return stream.read()

    def write_file(self, path: str, content: bytes) -> None:
        """Parent folders are made; a file that exists keeps its mode, and is replaced whole."""
        self._check_open()
        target = PurePosixPath(path)
        if not target.is_absolute():
            raise ValueError(f"path must be absolute, got {path}")
        scratch = f"contextrl-{secrets.token_hex(8)}"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo(scratch)
            member.size, member.mode, member.mtime = len(content), 0o644, int(time.time())
            tar.addfile(member, io.BytesIO(content))
        with engine_boundary(f"writing {path}"):
            self._client.api.put_archive(self._container.id, "/tmp", buffer.getvalue())
        folder, file = shlex.quote(str(target.parent)), shlex.quote(path)
        # `cat` as the sandbox's user, who then owns the file and cannot write what he may not.
        code, _, stderr = self._container.run(
            f"mkdir -p -- {folder} && cat /tmp/{scratch} > {file}",
            max_bytes=4096,
            timeout_s=60.0,
        )
        if code != 0:
            raise PermissionError(f"{path}: {' '.join(stderr.decode(errors='replace').split())}")

    def diff(self) -> str:
        """Empty, with a warning in the log, if the agent made the repository unreadable."""
        self._check_open()
        for all_binary in (False, True):
            code, stdout, stderr = self._container.run(
                diff_script(self.task, self.start_commit, all_binary=all_binary),
                max_bytes=self._limits.max_diff_bytes,
                timeout_s=self._limits.setup_timeout_s,
            )
            if code != 0:
                reason = " ".join(stderr.decode(errors="replace").split())[:200]
                logger.warning(
                    "%s: no diff, the repository is broken: %s", self.task.task_id, reason
                )
                return ""
            if len(stdout) > self._limits.max_diff_bytes:
                logger.warning("%s: diff cut at %d bytes", self.task.task_id, len(stdout))
            try:
                return stdout.decode()
            except UnicodeDecodeError:
                continue  # once more, with every changed file as a binary hunk
        return stdout.decode(errors="replace")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._shell.close()
            self._container.remove()

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxError(f"sandbox {self.sandbox_id} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class DockerProvider:
    """Starts sandboxes, from a warm pool where `prewarm` filled one. Safe from many threads."""

    def __init__(
        self,
        client: DockerClient | None = None,
        *,
        limits: SandboxLimits | None = None,
        run_id: str = "",
    ) -> None:
        self._client = client or connect()
        self._limits = limits or SandboxLimits()
        self.run_id = run_id or f"run-{secrets.token_hex(6)}"
        self._lock = threading.Lock()
        self._warm: dict[str, deque[_Container]] = defaultdict(deque)
        self._live: set[DockerSandbox] = set()
        self._closed = False
        atexit.register(self._close_one_by_one)

    def start(self, task: Task) -> DockerSandbox:
        container = self._take(task.image) or self._container(task.image)
        sandbox = DockerSandbox(self._client, container, task, self._limits)
        with self._lock:
            closed = self._closed
            self._live = {old for old in self._live if not old._closed} | {sandbox}
        if closed:
            sandbox.close()
            raise SandboxError("the sandbox provider was closed while a sandbox started")
        return sandbox

    def prewarm(self, image: str, count: int) -> None:
        """`count` idle containers of the image wait for `start`. A broken engine raises here."""
        with ThreadPoolExecutor(max_workers=min(count, 8)) as pool:
            for container in pool.map(lambda _: self._container(image), range(count)):
                with self._lock:
                    self._warm[image].append(container)

    def close(self) -> None:
        """Removes also what was left by a thread that never closed its sandbox."""
        atexit.unregister(self._close_one_by_one)
        closers = self._closers()
        if closers:
            with ThreadPoolExecutor(max_workers=8) as pool:
                list(pool.map(lambda closer: closer(), closers))

    def _close_one_by_one(self) -> None:
        """As `close`, for the interpreter's exit, when no thread can be started any more."""
        for closer in self._closers():
            closer()

    def _closers(self) -> list[Callable[[], None]]:
        """The provider is closed; calling these removes all it had."""
        with self._lock:
            self._closed = True
            live, self._live = self._live, set()
            warm = [container for pool in self._warm.values() for container in pool]
            self._warm.clear()
        return [*(sandbox.close for sandbox in live), *(container.remove for container in warm)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, image: str) -> _Container | None:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox provider is closed")
            return self._warm[image].popleft() if self._warm[image] else None

    def _container(self, image: str) -> _Container:
        return _Container(self._client, image, self._limits, self.run_id)


def _image_user(client: DockerClient, image: str) -> str:
    """The user that the image's own processes would run as; our images name `agent`."""
    from docker.errors import ImageNotFound

    try:
        config = client.api.inspect_image(image).get("Config") or {}
    except ImageNotFound as error:
        raise ImageError(
            f"image {image} not found locally; pull or build it first, "
            "for example: contextrl tasks validate --tasks FILE --repos DIR"
        ) from error
    return str(config.get("User") or "root")
