"""swe-rex's HTTP interface, and a byte channel to a shell behind it.

The server answers one request after another and knows only whole commands, so a shell lives behind
two named pipes: a request writes into one, a request reads at most a pipe's worth from the other.
A program that prints more than is read waits, as on any pipe.
"""

from __future__ import annotations

import base64
import contextlib
import shlex
import time
from collections.abc import Callable
from typing import Any

from contextrl.envs.errors import EngineUnavailableError, SandboxError
from contextrl.envs.shell import SHELL_ENVIRONMENT
from contextrl.envs.shell_line import BASH

MAX_ARGUMENT_BYTES = 90_000
"""Base64 of it stays below the kernel's 128 KiB for one argument."""
ANSWER_MARGIN_S = 30.0


class RexServer:
    """One deployment's server, which belongs to one sandbox."""

    def __init__(self, url: str, token: str, *, stop: Callable[[], None] = lambda: None) -> None:
        """`stop` ends the deployment. Raises `EngineUnavailableError` if nothing answers."""
        import requests

        self._url, self._stop = url.rstrip("/"), stop
        self._http = requests.Session()
        self._http.headers["X-API-Key"] = token

    def wait(self, timeout_s: float) -> None:
        """The server answers. Raises `EngineUnavailableError` in one line if it does not."""
        import requests

        deadline = time.monotonic() + timeout_s
        reason = "no answer"
        while time.monotonic() < deadline:
            try:
                answer = self._http.get(f"{self._url}/is_alive", timeout=5.0)
                if answer.status_code == 200:
                    return
                reason = f"status {answer.status_code}"
                if answer.status_code in {401, 403}:
                    break
            except requests.exceptions.RequestException as error:
                reason = type(error).__name__
            time.sleep(0.05)
        raise EngineUnavailableError(
            f"expected a swe-rex server at {self._url}, found {reason}; check the deployment's "
            "log, its port and its token"
        )

    def execute(self, command: list[str], *, timeout_s: float) -> tuple[int, str]:
        """Exit code and stdout of a command of its own, outside any shell."""
        answer = self._post("execute", {"command": command, "timeout": timeout_s}, timeout_s)
        return int(answer.get("exit_code") or 0), str(answer.get("stdout", ""))

    def write_text(self, path: str, content: str) -> None:
        self._post("write_file", {"path": path, "content": content}, 60.0)

    def close(self) -> None:
        self._http.close()
        self._stop()

    def _post(self, endpoint: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        import requests

        try:
            answer = self._http.post(
                f"{self._url}/{endpoint}", json=body, timeout=timeout_s + ANSWER_MARGIN_S
            )
            found = answer.json()
        except (requests.exceptions.RequestException, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise SandboxError(f"swe-rex server at {self._url}: {said}") from error
        if answer.status_code != 200 or not isinstance(found, dict):
            raise SandboxError(f"swe-rex server at {self._url}: {str(found)[:300]}")
        return found


class RemoteChannel:
    """stdin, the output and the exit code of one bash behind a server."""

    def __init__(self, server: RexServer, folder: str) -> None:
        self._server, self._folder = server, folder
        self._exit: int | None = None
        variables = " ".join(shlex.quote(f"{k}={v}") for k, v in SHELL_ENVIRONMENT.items())
        # Opened for both directions, so that no end waits for the other; what the shell printed
        # last stays in the pipe as long as somebody holds it.
        keeper = (
            "exec 0<>in 1<>out 2>&1; echo $$ >pid; "
            f"env {variables} {' '.join(BASH)}; echo $? >code; "
            "for _ in {1..600}; do [ -e code ] || break; sleep 0.1; done"
        )
        _, answer = server.execute(
            [
                "bash",
                "-c",
                f"mkdir -m 700 {folder} && cd {folder} && mkfifo in out && "
                f"{{ setsid bash -c {shlex.quote(keeper)} </dev/null >/dev/null 2>&1 & }}; "
                "for _ in {1..500}; do [ -s pid ] && cat pid && break; sleep 0.01; done",
            ],
            timeout_s=60.0,
        )
        if not answer.strip().isdigit():
            raise SandboxError("the swe-rex server could not start a shell")
        self.session = int(answer)

    def send(self, content: bytes) -> None:
        """A process that is gone is no error here: `receive` tells."""
        for start in range(0, len(content), MAX_ARGUMENT_BYTES):
            encoded = base64.b64encode(content[start : start + MAX_ARGUMENT_BYTES]).decode()
            script = f'cd {self._folder} 2>/dev/null && [ ! -e code ] && base64 -d <<<"$1" >in'
            self._server.execute(["bash", "-c", script, "send", encoded], timeout_s=60.0)

    def receive(self, timeout_s: float) -> bytes | None:
        """None when nothing came in time, empty when nothing will come any more."""
        script = (
            f"cd {self._folder} 2>/dev/null || {{ echo; echo -1; exit; }}; t=$1; "
            "[ ! -e code ] || t=0.05; "
            "timeout $t dd if=out bs=65536 count=1 status=none 2>/dev/null | base64 -w0; echo; "
            "cat code 2>/dev/null"
        )
        # Zero would mean no limit.
        limit = f"{max(timeout_s, 0.01):.3f}"
        _, answer = self._server.execute(
            ["bash", "-c", script, "receive", limit], timeout_s=timeout_s + 10.0
        )
        encoded, _, code = answer.partition("\n")
        if encoded:
            return base64.b64decode(encoded)
        if code.strip():
            self._exit = int(code)
            return b""
        return None

    def exit_code(self) -> int | None:
        """Known once `receive` has seen the end."""
        return self._exit

    def close(self) -> None:
        with contextlib.suppress(SandboxError):
            command = f"kill -KILL -- -{self.session} 2>/dev/null; rm -rf {self._folder}"
            self._server.execute(["bash", "-c", command], timeout_s=20.0)
