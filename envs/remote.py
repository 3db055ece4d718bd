"""Sandboxes on any machine that runs swe-rex's server: local, Modal, Fargate, a cluster's own.

Who starts that machine is the caller's business (`deploy`), with swe-rex's own library or any other
way; from then on we speak the server's HTTP interface (`/execute`, `/write_file`) ourselves. Its
client library is not used: it imports whatever module a server's answer names.

Isolation, limits and the network are the deployment's: nothing here can switch them off or on.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import shlex
from collections.abc import Callable

from contextrl.envs.container import SandboxLimits
from contextrl.envs.errors import SandboxError
from contextrl.envs.kill import KILL_SCRIPT
from contextrl.envs.remote_channel import RemoteChannel, RexServer
from contextrl.envs.sandbox_base import Closing, LiveSandboxes, ScriptedSandbox
from contextrl.envs.types import Task

Deploy = Callable[[Task], RexServer]
"""A machine of its own for one sandbox, with the task's image, its server answering."""


class RemoteSandbox(ScriptedSandbox):
    """One task on one deployment. Close it, or use it as a context manager."""

    def __init__(self, server: RexServer, task: Task, limits: SandboxLimits) -> None:
        """The deployment is ours from here on: closing the sandbox ends it."""
        super().__init__(f"rex-{secrets.token_hex(6)}", task, limits)
        self._server = server
        self._folder = f"/tmp/.{self.sandbox_id}"
        self._channel: RemoteChannel | None = None
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(SandboxError):
            self.revive()
        self._server.close()

    # What a `ShellHost` does.

    def open_shell(self) -> RemoteChannel:
        self._channel = RemoteChannel(self._server, f"{self._folder}-{secrets.token_hex(4)}")
        return self._channel

    def kill(self, *, shell_pid: int, last_pid: int, signal: str) -> None:
        # The server and its machine run beside the shell: nothing outside its session is touched.
        session = str(self._channel.session if self._channel else 0)
        arguments = ["kill", str(shell_pid), str(last_pid), session, signal]
        self._server.execute(["bash", "-c", KILL_SCRIPT, *arguments], timeout_s=20.0)

    def revive(self) -> None:
        if self._channel is not None:
            self.kill(shell_pid=self._channel.session, last_pid=0, signal="KILL")
            self._channel.close()

    def limit_reached(self) -> None:
        """What a deployment limits is not known here."""

    def _run(self, script: str, max_bytes: int, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        place = shlex.quote(f"{self._folder}-{secrets.token_hex(4)}")
        self._server.write_text(f"{place}/script", script)
        self._server.write_text(f"{place}/stdin", base64.b64encode(stdin).decode())
        wrapper = (
            f"cd {place} && base64 -d stdin | bash --noprofile --norc script 2>err "
            f'| head -c {max_bytes + 1} | base64 -w0; status=("${{PIPESTATUS[@]}}"); echo; '
            "echo ${status[1]}; head -c 4096 err | base64 -w0; echo; "
            f"cd / && rm -rf {place}"
        )
        _, answer = self._server.execute(
            ["bash", "-c", wrapper], timeout_s=self._limits.setup_timeout_s
        )
        stdout, code, stderr = (*answer.split("\n"), "", "", "")[:3]
        if not code.strip().isdigit():
            return -1, b"", b"timed out"
        return int(code), base64.b64decode(stdout), base64.b64decode(stderr)


class RemoteProvider(Closing):
    """A deployment for each sandbox, ended with it. As thread-safe as `deploy`."""

    def __init__(self, deploy: Deploy, *, limits: SandboxLimits | None = None) -> None:
        self._deploy = deploy
        self._limits = limits or SandboxLimits()
        self._live: LiveSandboxes[RemoteSandbox] = LiveSandboxes()

    def start(self, task: Task) -> RemoteSandbox:
        return self._live.add(RemoteSandbox(self._deploy(task), task, self._limits))

    def close(self) -> None:
        for sandbox in self._live.end():
            sandbox.close()
