"""A real swe-rex server on loopback, in a namespace over the unpacked tiny image."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contextrl.envs.bubblewrap import command_line
from contextrl.envs.docker import SandboxLimits
from contextrl.envs.remote import RemoteProvider
from contextrl.envs.remote_channel import RexServer
from contextrl.envs.unpacked import read_root

LIMITS = SandboxLimits(memory_mb=4096, pids=400, max_output_bytes=64 * 1024)


def deploy_in(roots: Path):
    """A function that starts a server of its own for each sandbox."""

    def deploy(task) -> RexServer:
        files, root = read_root(roots, task.image)
        control = Path(tempfile.mkdtemp(prefix="contextrl-rex-"))
        control.chmod(0o755)
        (control / "mounts").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        server = (
            "cd /tmp; PYTHONPATH=/run/contextrl/mounts exec /usr/bin/python3 -m swerex.server "
            f"--host 127.0.0.1 --port {port} --auth-token {token}"
        )
        command = command_line(
            (files,), root, LIMITS, mounts=control / "mounts", control=control, first_process=server
        )
        packages = sysconfig.get_paths()["purelib"]
        script = command[-1].replace("--unshare-all", "--unshare-pid --unshare-ipc --unshare-uts")
        command[-1] = script.replace(
            "--tmpfs /run/contextrl/mounts", f"--ro-bind {packages} /run/contextrl/mounts"
        )
        with (control / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

        def stop() -> None:
            os.killpg(process.pid, 9)
            process.wait()
            shutil.rmtree(control, ignore_errors=True)

        found = RexServer(f"http://127.0.0.1:{port}", token, stop=stop)
        try:
            found.wait(60.0)
        except BaseException:
            print((control / "log").read_text())
            stop()
            raise
        return found

    return deploy


@pytest.fixture(scope="session")
def remote_provider(namespace_provider) -> Iterator[RemoteProvider]:
    """A real swe-rex server on loopback for each sandbox."""
    pytest.importorskip("swerex", reason="needs the extra `remote`")
    with RemoteProvider(deploy_in(namespace_provider._roots), limits=LIMITS) as provider:
        yield provider
