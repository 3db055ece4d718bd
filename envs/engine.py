"""The Docker engine: reaching it, naming its failures, and the byte channel of one exec."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from contextrl.envs.errors import EngineUnavailableError, ImageError, SandboxError

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENGINE_TIMEOUT_S = 180.0
"""For one request: starting many containers at once on a busy machine is slow, not broken."""
CONNECTION_POOL = 128
RESTART_PATIENCE_S = 60.0


def connect(*, timeout_s: float = ENGINE_TIMEOUT_S) -> DockerClient:
    """A client whose engine answered. Raises `EngineUnavailableError`."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=int(timeout_s), max_pool_size=CONNECTION_POOL)
        client.ping()
    except (DockerException, OSError) as error:
        raise EngineUnavailableError(
            f"expected a running Docker engine, found none ({_reason(error)}); start it (systemctl "
            "start docker), or add yourself to the group docker, or set DOCKER_HOST"
        ) from error
    return client


def outlast_restart(
    attempt: Callable[[], T], client: DockerClient, *, patience_s: float = RESTART_PATIENCE_S
) -> T:
    """The result of `attempt`, again and again while it fails because the engine is away.

    A restart takes seconds. An engine that shuts down still answers for a while and then not, so
    one more try after it answered would not be enough.
    """
    deadline = time.monotonic() + patience_s
    said = False
    while True:
        try:
            return attempt()
        except SandboxError as error:
            away = isinstance(error, EngineUnavailableError) or not answers(client)
            if not away or time.monotonic() >= deadline:
                raise
        if not said:
            logger.warning("the Docker engine is away: waiting up to %.0f s", patience_s)
            said = True
        time.sleep(0.5)


def answers(client: DockerClient) -> bool:
    """Whether the engine does, now."""
    try:
        with engine_boundary("asking the engine"):
            return bool(client.ping())
    except SandboxError:
        return False


@contextlib.contextmanager
def engine_boundary(what: str) -> Iterator[None]:
    """Every failure of the engine inside the block leaves it as a one-line `SandboxError`."""
    import requests
    from docker.errors import DockerException, ImageNotFound

    try:
        yield
    except SandboxError:
        raise
    except ImageNotFound as error:
        raise ImageError(f"{what}: {_reason(error)}") from error
    except requests.exceptions.ConnectionError as error:
        raise EngineUnavailableError(
            f"{what}: the Docker engine is gone: {_reason(error)}"
        ) from error
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        raise SandboxError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None)
    text = explanation if isinstance(explanation, str) else str(error)
    return " ".join(text.split())[:300] or type(error).__name__


class ExecChannel:
    """stdin and the two output streams of one process inside a container."""

    def __init__(
        self,
        client: DockerClient,
        container_id: str,
        command: list[str],
        *,
        user: str,
        environment: dict[str, str],
        workdir: str | None = None,
    ) -> None:
        self._client = client
        with engine_boundary(f"exec in container {container_id[:12]}"):
            self._exec_id: str = client.api.exec_create(
                container_id,
                command,
                stdin=True,
                user=user,
                environment=environment,
                workdir=workdir,
            )["Id"]
            # The response owns the connection: it has to outlive the socket.
            self._response: Any = client.api.exec_start(self._exec_id, socket=True)
        self._socket: socket.socket = getattr(self._response, "_sock", self._response)
        self._buffer = bytearray()
        self._ended = False

    def send(self, content: bytes) -> None:
        """A process that is gone is no error here: `receive` tells."""
        self._socket.settimeout(60.0)
        with engine_boundary("writing to a sandbox"), contextlib.suppress(ConnectionError):
            self._socket.sendall(content)

    def receive(self, timeout_s: float) -> bytes | None:
        """Both output streams as they come; None when nothing came, empty at the end."""
        frame = self.receive_frame(timeout_s)
        return None if frame is None else frame[1]

    def receive_frame(self, timeout_s: float) -> tuple[int, bytes] | None:
        """One piece of output and its stream: 1 stdout, 2 stderr, 0 at the end."""
        deadline = time.monotonic() + timeout_s
        while not self._ended:
            if len(self._buffer) >= 8:
                size = int.from_bytes(self._buffer[4:8], "big")
                if len(self._buffer) >= 8 + size:
                    stream, payload = self._buffer[0], bytes(self._buffer[8 : 8 + size])
                    del self._buffer[: 8 + size]
                    if payload:
                        return stream, payload
                    continue
            self._socket.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                chunk = self._socket.recv(256 * 1024)
            except (TimeoutError, BlockingIOError):
                return None
            except ConnectionError:
                chunk = b""
            except OSError as error:
                raise SandboxError(f"reading from a sandbox: {error}") from error
            self._buffer += chunk
            self._ended = not chunk
        return 0, b""

    def exit_code(self) -> int | None:
        with engine_boundary("inspecting a sandbox's process"):
            state = self._client.api.exec_inspect(self._exec_id)
        if state["Running"]:
            return None
        code = state["ExitCode"]
        return -1 if code is None else int(code)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()
        with contextlib.suppress(OSError):
            self._response.close()


def read_whole(
    channel: ExecChannel, last: bytes, max_bytes: int, *, timeout_s: float
) -> tuple[int, bytes, bytes] | None:
    """Exit code (-1 out of time), stdout up to `last` or one byte over `max_bytes`, and stderr.

    None where the process ended well and `last` did not come: a busy engine can close the streams
    before it sent what was in them.
    """
    streams = {1: bytearray(), 2: bytearray()}
    deadline = time.monotonic() + timeout_s
    ended = False
    while True:
        frame = channel.receive_frame(1.0)
        if frame is not None and frame[0] == 0:
            break
        if frame is not None:
            room = max_bytes + 1 + len(last) - len(streams[frame[0]])
            streams[frame[0]] += frame[1][:room]
        elif ended:
            break  # nothing came any more: a child of it holds the streams open
        else:
            ended = channel.exit_code() is not None
        if time.monotonic() > deadline:
            return -1, bytes(streams[1][: max_bytes + 1]), b"timed out"
    code = channel.exit_code()
    stdout, found, _ = bytes(streams[1]).partition(last)
    if code == 0 and not found and len(stdout) <= max_bytes:
        return None
    return -1 if code is None else code, stdout[: max_bytes + 1], bytes(streams[2])
