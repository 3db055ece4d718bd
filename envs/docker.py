"""Docker sandboxes: a task's start state in a container, and a persistent shell in it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import secrets
import shlex
import tarfile
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from contextrl.envs.cleanup import remove_container
from contextrl.envs.container import Container, SandboxLimits
from contextrl.envs.disk_guard import DiskGuard
from contextrl.envs.engine import connect, engine_boundary, outlast_restart
from contextrl.envs.errors import SandboxError
from contextrl.envs.recycle import Recycler
from contextrl.envs.repository import read_diff
from contextrl.envs.sandbox_base import Closing, LiveSandboxes, ShellSandbox
from contextrl.envs.types import Task

if TYPE_CHECKING:
    from docker import DockerClient

REPLACED = "\ufffd"  # what stands for bytes that are no text

__all__ = ["DockerProvider", "DockerSandbox", "SandboxLimits"]


class DockerSandbox(ShellSandbox):
    """One task in one container. Close it, or use it as a context manager."""

    def __init__(
        self,
        client: DockerClient,
        container: Container,
        task: Task,
        limits: SandboxLimits,
        release: Callable[[Container], None] | None = None,
        start_commit: str = "",
    ) -> None:
        """The sandbox is in the task's start state. The container is ours until `release`.

        Without `release`, and after a failed start, it is removed. With `start_commit` it is in
        that state already.
        """
        super().__init__(container.id[:12], task, limits, host=container)
        self._client = client
        self.container = container
        self._release = release
        self.start_commit = start_commit
        try:
            if not start_commit:
                self._set_up()
        except BaseException:
            self._release = None
            self.close()
            raise

    def read_file(self, path: str) -> bytes:
        """Raises `FileNotFoundError` if there is none, `ValueError` if it is too large.

        The engine reads it, not a process inside: nothing in the sandbox can answer for it.
        """
        self._check_open()
        from docker.errors import NotFound

        limit = self._limits.max_file_bytes
        archive = bytearray()
        too_large = False
        try:
            with engine_boundary(f"reading {path}"):
                chunks, _ = self._client.api.get_archive(self.container.id, path)
                for chunk in chunks:
                    archive += chunk
                    too_large = len(archive) > limit + 1024 * 1024
                    if too_large:
                        break
        except SandboxError as error:
            if isinstance(error.__cause__, NotFound) and "No such container" not in str(error):
                raise FileNotFoundError(f"{path}: no such file in the sandbox") from error
            raise
        if too_large:
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
        folder, file = shlex.quote(str(target.parent)), shlex.quote(path)
        # A process of the sandbox's user writes it, who then owns it and gains no right by it.
        code, _, stderr = self.container.run(
            f"mkdir -p -- {folder} && head -c {len(content)} > {file}",
            stdin=content,
            max_bytes=4096,
            timeout_s=self._limits.setup_timeout_s,
        )
        if code != 0:
            raise PermissionError(f"{path}: {' '.join(stderr.decode(errors='replace').split())}")

    def diff(self) -> str:
        """Empty, with a warning in the log, if the agent made the repository unreadable."""
        self._check_open()

        def run(script: str) -> tuple[int, bytes, bytes]:
            limits, printed = self._limits, None
            with contextlib.suppress(SandboxError):
                printed = self.container.after.run(
                    f"bash --noprofile --norc -c {shlex.quote(script)} 2>/dev/null",
                    timeout_s=limits.setup_timeout_s,
                )
            # Where it did not go well, the slower way knows why and kills what is in the way.
            if printed is None or printed.exit_code != 0 or REPLACED in printed.output:
                return self.container.run(
                    script, max_bytes=limits.max_diff_bytes, timeout_s=limits.setup_timeout_s
                )
            return 0, printed.output.encode()[: limits.max_diff_bytes + 1], b""

        return read_diff(run, self.task, self.start_commit)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._shell.close()
            if self._release is not None:
                self._release(self.container)
            else:
                self.container.remove()


class DockerProvider(Closing):
    """Starts sandboxes, from a warm pool where `prewarm` filled one. Safe from many threads."""

    def __init__(
        self,
        client: DockerClient | None = None,
        *,
        limits: SandboxLimits | None = None,
        run_id: str = "",
        recycle: bool = False,
    ) -> None:
        """`recycle`: a used container that is proven clean serves again (`envs.recycle`)."""
        self._recycler = Recycler() if recycle else None
        self._client = client or connect()
        self._limits = limits or SandboxLimits()
        self.run_id = run_id or f"run-{secrets.token_hex(6)}"
        self._lock = threading.Lock()
        self._warm: dict[str, deque[Container]] = defaultdict(deque)
        self._live: LiveSandboxes[DockerSandbox] = LiveSandboxes()
        self._lost: set[str] = set()
        """Containers that were to be removed, or were asked for, while the engine was away."""
        self._closed = False
        self._guard = DiskGuard(
            self._client,
            run_id=self.run_id,
            limit_bytes=self._limits.disk_mb << 20,
            live=lambda: [sandbox.container for sandbox in self._live.now()],
        )
        atexit.register(self._close_one_by_one)

    def start(self, task: Task) -> DockerSandbox:
        """Waits for an engine that is being restarted; what ran on it is lost."""
        return outlast_restart(lambda: self._start(task), self._client)

    def _start(self, task: Task) -> DockerSandbox:
        container, commit = self._place(task)
        release = None if self._recycler is None else self._recycle
        sandbox = DockerSandbox(self._client, container, task, self._limits, release, commit)
        if self._recycler is not None and not commit:
            self._recycler.keep_start(task, container, sandbox.start_commit)
        self._guard.start()
        return self._live.add(sandbox)

    def _place(self, task: Task) -> tuple[Container, str]:
        """A container as its image has it, and no commit; or in the task's start, and which."""
        container = self._take(task.image)
        if container is None:
            return self._container(task.image), ""
        if not container.used:
            return container, ""
        assert self._recycler is not None
        state = self._recycler.renew(task, container)
        if state is None:
            container.remove()
            return self._container(task.image), ""
        container.keep_shell()
        return container, state.commit

    def prewarm(self, image: str, count: int) -> None:
        """`count` idle containers of the image wait for `start`. A broken engine raises here."""

        def add(_: int) -> None:
            container = self._container(image)
            container.warm_up()
            with self._lock:
                if not self._closed:
                    self._warm[image].append(container)
                    return
            container.remove()

        with ThreadPoolExecutor(max_workers=max(1, min(count, 8))) as pool:
            list(pool.map(add, range(count)))

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

    def _closers(self) -> list[Callable[[], object]]:
        """The provider is closed; calling these removes all it had."""
        self._guard.stop()
        live = self._live.end()
        with self._lock:
            self._closed = True
            warm = [container for pool in self._warm.values() for container in pool]
            self._warm.clear()
        lost = [functools.partial(remove_container, self._client, one) for one in self._lost]
        return [*(one.close for one in live), *(one.remove for one in warm), *lost]

    def _take(self, image: str) -> Container | None:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox provider is closed")
            return self._warm[image].popleft() if self._warm[image] else None

    def _container(self, image: str) -> Container:
        container = Container(self._client, image, self._limits, self.run_id, self._lost)
        if self._recycler is not None:
            self._recycler.learn(image, container)
        return container

    def _recycle(self, container: Container) -> None:
        """Back into the warm pool, where it is renewed once it is known for which task."""
        assert self._recycler is not None
        if not self._closed and self._recycler.retire(container.image, container):
            container.used = True
            with self._lock:
                if not self._closed:
                    self._warm[container.image].append(container)
                    return
        container.remove()
