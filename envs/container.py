"""One locked-down container, and the processes that run in it. Knows nothing of tasks.

Nothing is opened that was not asked for: no network, no capability, no new privileges, bounded
memory, cpu and processes. Labels say whose it is and until when, so that `cleanup.reap` can remove
what a killed driver left behind.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contextrl.envs.cleanup import labels, remove_container
from contextrl.envs.engine import ExecChannel, engine_boundary, read_whole
from contextrl.envs.errors import ImageError, SandboxError
from contextrl.envs.kill import KILL_SCRIPT
from contextrl.envs.shell import SHELL_ENVIRONMENT, Channel, PersistentShell
from contextrl.envs.shell_line import BASH
from contextrl.envs.types import Limit

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

# Both versions of the cgroup file system; then whether the disk below is full.
COUNTERS_SCRIPT = r"""
count() {
  [ -r "$2" ] || return
  while read -r key value; do [ "$key" != "$3" ] || echo "$1 $value"; done <"$2"
}
count oom /sys/fs/cgroup/memory.events oom_kill
count oom /sys/fs/cgroup/memory/memory.oom_control oom_kill
count pids /sys/fs/cgroup/pids.events max
count pids /sys/fs/cgroup/pids/pids.events max
for place in / /dev/shm; do
  set -- $(stat -f -c '%a %b' "$place"); [ $(($1 * 200)) -ge "$2" ] || echo "full 1"
done
"""
MAX_AFTER_BYTES = 16 * 1024 * 1024
"""Of what one command of the shell after the agent prints: a diff, above all."""
_LIMIT_OF = {"oom": Limit.MEMORY, "pids": Limit.PROCESSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one sandbox may use."""

    memory_mb: int = 2048
    """Swap is off: a command that needs more is killed by the kernel."""
    cpus: float = 2.0
    pids: int = 512
    disk_mb: int = 4096
    """Of one file at once, and of all that was written, within a second or so (`disk_guard`)."""
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
        for name in ("memory_mb", "cpus", "pids", "disk_mb", "max_output_bytes", "lease_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"sandbox.{name} must be positive, got {getattr(self, name)}")


class Container:
    """A running container without a task: what the warm pool holds. Implements `ShellHost`."""

    def __init__(
        self,
        client: DockerClient,
        image: str,
        limits: SandboxLimits,
        run_id: str,
        lost: set[str] | None = None,
    ) -> None:
        """`lost` holds ids or names of containers that could not be removed, this one's too."""
        self._lost = set() if lost is None else lost
        self.image = image
        self._client = client
        self._api = client.api
        self._spare: Channel | None = None
        self._after: PersistentShell | None = None
        self._restarting = threading.Lock()  # the disk guard does it from its own thread
        self._counters: dict[str, int] = {}
        self.disk_limit_reached = False
        """Set by the disk guard, which then ended every process."""
        self.used = False  # by an episode before: it has to be renewed for another
        with engine_boundary(f"starting a sandbox of image {image}"):
            self.user: str = _image_user(client, image)
            self.id: str = self._create(limits, run_id)
        try:
            with engine_boundary(f"starting a sandbox of image {image}"):
                self._api.start(self.id)
        except SandboxError:
            self.remove()
            raise

    def _create(self, limits: SandboxLimits, run_id: str) -> str:
        """The id. Under a name of ours, so that a container whose engine went before it answered
        can be removed later."""
        from docker.errors import APIError

        name, file_bytes = f"contextrl-{secrets.token_hex(8)}", limits.disk_mb << 20
        try:
            created = self._api.create_container(
                self.image,
                name=name,
                # Root owns the process that keeps the container up, so `kill -9 -1` misses it.
                entrypoint=["sleep"],
                command=["infinity"],
                user="0:0",
                network_disabled=not limits.network,
                labels=labels(run_id, lease_s=limits.lease_s),
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
                        {"Name": "fsize", "Soft": file_bytes, "Hard": file_bytes},
                    ],
                    cap_drop=["ALL"],
                    cap_add=list(limits.capabilities) or None,
                    security_opt=["no-new-privileges:true"],
                    log_config={"Type": "none"},
                ),
            )
        except APIError:  # an answer: there is none
            raise
        except BaseException:
            self._lost.add(name)
            raise
        container_id: str = created["Id"]
        return container_id

    def channel(self, command: list[str]) -> ExecChannel:
        """A process in the container, which is started again if its main process was killed."""
        try:
            return self._exec(command)
        except SandboxError:
            self.revive()
            return self._exec(command)

    def _exec(self, command: list[str]) -> ExecChannel:
        with self._restarting:
            return ExecChannel(
                self._client, self.id, command, user=self.user, environment=dict(SHELL_ENVIRONMENT)
            )

    def open_shell(self) -> Channel:
        spare, self._spare = self._spare, None
        return spare or self.channel(list(BASH))

    @property
    def after(self) -> PersistentShell:
        """A shell that no command of the agent ran in, opened once the agent is done.

        What the agent left running may still act as the same user.
        """
        if self._after is None:
            self._after = PersistentShell(
                self, setup="", workdir="/", max_output_bytes=MAX_AFTER_BYTES
            )
        return self._after

    def keep_shell(self) -> None:
        """The shell that was opened last waits for the next episode."""
        if self._after is not None:
            self._spare = self._after.detach()
            self._after = None

    def warm_up(self) -> None:
        """The first shell is open already when it is asked for."""
        self._spare = self.channel(list(BASH))

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
        with self._restarting, engine_boundary(f"restarting sandbox {self.id[:12]}"):
            self._api.restart(self.id, timeout=0)

    def limit_reached(self) -> Limit | None:
        """By the kernel's own counters, so that a program's message alone proves nothing."""
        if self.disk_limit_reached:
            self.disk_limit_reached = False
            return Limit.DISK
        try:
            found = self._run_once(COUNTERS_SCRIPT, 4096, 20.0, b"")
        except SandboxError:
            return None  # the next command finds out what is wrong
        if found is None:
            return None
        code, stdout, stderr = found
        if code != 0 and b"temporarily unavailable" in stderr:
            return Limit.PROCESSES
        before, self._counters = self._counters, {}
        for line in stdout.decode(errors="replace").splitlines():
            name, _, value = line.partition(" ")
            if value.isdigit():
                self._counters[name] = int(value)
        for name, limit in _LIMIT_OF.items():
            if self._counters.get(name, 0) > before.get(name, 0):
                return limit
        return Limit.DISK if self._counters.get("full") else None

    def run(
        self, script: str, *, max_bytes: int, timeout_s: float, stdin: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        """Exit code, stdout (cut at one byte over `max_bytes`) and stderr of a fresh bash.

        Where the agent left no process to fork, all of its processes are killed first.
        """
        result = self._run_once(script, max_bytes, timeout_s, stdin)
        if result is not None and result[0] != 0 and b"temporarily unavailable" in result[2]:
            self.revive()
            result = self._run_once(script, max_bytes, timeout_s, stdin)
        # A busy engine can close the streams of a process before it sent what was in them.
        result = result or self._run_once(script, max_bytes, timeout_s, stdin)
        if result is None:
            raise SandboxError(f"the engine lost output of a process in sandbox {self.id[:12]}")
        return result

    def _run_once(
        self, script: str, max_bytes: int, timeout_s: float, stdin: bytes
    ) -> tuple[int, bytes, bytes] | None:
        """None where the script ended well and its output did not come whole."""
        nonce = secrets.token_hex(16).encode()
        whole = f'bash --noprofile --norc -c "$1" && builtin printf %s {nonce.decode()}'
        channel = self.channel(["bash", "--noprofile", "--norc", "-c", whole, "run", script])
        try:
            channel.send(stdin)
            return read_whole(channel, nonce, max_bytes, timeout_s=timeout_s)
        finally:
            channel.close()

    def remove(self) -> None:
        """Killed and deleted, or already gone. Waits for nothing that runs inside."""
        for shell in (self._spare, self._after):
            if shell is not None:
                shell.close()
        if remove_container(self._client, self.id):
            self._lost.discard(self.id)
        else:
            self._lost.add(self.id)


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
