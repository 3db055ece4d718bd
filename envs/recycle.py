"""A used container made fresh again, with proof, for short episodes by the thousand.

Starting and removing a container costs more processor time than a short episode does. Where code
runs as an unprivileged user it leaves behind nothing but processes, System V objects, and files in
the few folders that user may write. So: what those folders held at the start is kept outside the
container; after use every process is killed and the folders are emptied; before the next use they
are filled again, and a listing of them with their contents, and of System V objects, must equal
that of a fresh container. The shell that did this is the next episode's: starting one in a
container costs more than all else. One that differs in anything, or takes too long, is removed.

A task that comes back is filled in with its start state itself, which was made and proven once
(`repository.start_script`), in place of the image's files and that script.

Images that run as root, and images whose user may write where programs live, are never recycled.
"""

from __future__ import annotations

import logging
import shlex
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from contextrl.envs.errors import SandboxError
from contextrl.envs.repository import refresh
from contextrl.envs.shell import PersistentShell
from contextrl.envs.types import Task

logger = logging.getLogger(__name__)

MAX_ARCHIVE_BYTES = 64 * 1024 * 1024
MAX_STATES_BYTES = 256 * 1024 * 1024
"""Of start states kept in memory; those that were not used for the longest time go."""
WORTH_KEEPING = 2
"""Starts of one task before its state is kept: keeping it costs about as much as making it."""
MAX_USES = 200
TIMEOUT_S = 30.0
MOUNTS = ("/dev/shm", "/dev/mqueue")  # apart from the root file system, which `find -xdev` is for

# Programs come from folders that the user cannot write: `_ROOTS` refuses an image where it can.
_PATH = "export PATH=/usr/bin:/bin; set -u"
_ROOTS = f"""{_PATH}
[ "$(id -u)" != 0 ] || {{ echo 'it runs as root' >&2; exit 3; }}
find / -xdev -type d -writable -prune -print0
for mount in {" ".join(MOUNTS)}; do [ ! -w "$mount" ] || printf '%s\\0' "$mount"; done
"""
# Also what the user owns: an owner can make writable what is not.
_STRAY_FILES = (
    "find / -xdev -type d -writable -prune -o "
    "'(' -type f -writable -o -user \"$(id -u)\" ')' -print -quit"
)
# By the shell itself, which `kill -9 -1` spares; what ends last may need a moment.
_ALONE = r"""
contextrl_alone() {
  builtin unset -f contextrl_alone
  local try process others
  builtin kill -9 -1 2>/dev/null
  for try in {1..100}; do
    others=
    for process in /proc/[0-9]*; do
      [ ! -O "$process" ] || [ "${process#/proc/}" = $$ ] || others="$others $process"
    done
    [ -n "$others" ] || return 0
    /usr/bin/sleep 0.02
  done
  return 1
}
contextrl_alone
"""
_EMPTY = r"""
find "${roots[@]}" -mindepth 1 -delete 2>/dev/null && exit
find "${roots[@]}" -mindepth 1 -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
find "${roots[@]}" -mindepth 1 -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
find "${roots[@]}" -mindepth 1 -delete
"""
_FILL = (
    "tar -xpf - -C / 2>/dev/null\n"  # it cannot set times of folders of root; the listing judges
)
_LISTING = r"""
{
  find "${roots[@]}" -printf '%p %y %m %s %l\0' | LC_ALL=C sort -z
  find "${roots[@]}" -type f -exec sha256sum -z {} + | LC_ALL=C sort -z
  cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg
} | sha256sum
"""


class Recyclable(Protocol):
    """The part of a container that is needed."""

    id: str

    @property
    def after(self) -> PersistentShell:
        """A shell that no command of an episode ran in."""
        ...

    def run(
        self, script: str, *, max_bytes: int, timeout_s: float, stdin: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        """A fresh bash: exit code, stdout cut at one byte over `max_bytes`, and stderr."""
        ...


@dataclass(frozen=True, slots=True)
class FileState:
    """What the writable folders of a container held at one time."""

    roots: tuple[str, ...]
    archive: bytes
    listing: str
    """A digest of it."""
    commit: str = ""
    """Of a task's start state; empty for what the image itself holds."""


class StartKey(NamedTuple):
    """All that a start state follows from."""

    image: str
    workdir: str
    base_commit: str
    setup_patch: str
    shell_setup: str

    @classmethod
    def of(cls, task: Task) -> StartKey:
        return cls(task.image, task.workdir, task.base_commit, task.setup_patch, task.shell_setup)


class Recycler:
    """Knows the pristine state of each image, and start states of tasks. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pristine: dict[str, FileState | None] = {}
        self._uses: dict[str, int] = {}
        self._starts: Counter[StartKey] = Counter()
        self._states: OrderedDict[StartKey, FileState] = OrderedDict()

    def learn(self, image: str, container: Recyclable) -> None:
        """Remember `container`, which nobody used yet, as what `image` starts as."""
        with self._lock:
            if image in self._pristine:
                return
            try:
                self._pristine[image] = _capture(container)
            except SandboxError as error:
                logger.info("containers of %s are not recycled: %s", image, error)
                self._pristine[image] = None

    def keep_start(self, task: Task, container: Recyclable, commit: str) -> None:
        """Remember that `container`, in which no command of an agent ran, is in `task`'s start.

        Does nothing where the task is new, and costs two processes in it otherwise.
        """
        key = StartKey.of(task)
        with self._lock:
            self._starts[key] += 1
            pristine = self._pristine.get(task.image)
            if pristine is None or self._starts[key] != WORTH_KEEPING:
                return
        try:
            state = _state_of(container, pristine.roots, commit)
        except SandboxError as error:
            logger.info("the start of %s is made anew each time: %s", task.task_id, error)
            return
        with self._lock:
            self._states[key] = state
            while sum(len(one.archive) for one in self._states.values()) > MAX_STATES_BYTES:
                dropped, _ = self._states.popitem(last=False)
                del self._starts[dropped]

    def retire(self, image: str, container: Recyclable) -> bool:
        """Whether the container may serve again, once renewed; if not, remove it.

        No process and no file of its user is left in it.
        """
        with self._lock:
            pristine = self._pristine.get(image)
            uses = self._uses.pop(container.id, 0) + 1
        if pristine is None or uses >= MAX_USES:
            return False
        script = f"{_ALONE.rstrip()} && (\n{_script(pristine.roots, _EMPTY)})"
        try:
            emptied = container.after.run(script, timeout_s=TIMEOUT_S)
        except SandboxError as error:
            logger.info("sandbox %s is not recycled: %s", container.id[:12], error)
            return False
        if emptied.exit_code != 0:
            logger.info("sandbox %s is not recycled: it cannot be emptied", container.id[:12])
            return False
        with self._lock:
            self._uses[container.id] = uses
        return True

    def renew(self, task: Task, container: Recyclable) -> FileState | None:
        """The state that a retired container is in again; None: remove it.

        The start of `task`, with its commit, where that is known; else what its image holds.
        """
        key = StartKey.of(task)
        with self._lock:
            state = self._states.get(key) or self._pristine.get(task.image)
            if key in self._states:
                self._states.move_to_end(key)
        if state is None:
            return None
        script = _FILL + _LISTING
        if state.commit:
            script += refresh(task)
        try:
            renewed = container.after.run(
                _script(state.roots, script), timeout_s=TIMEOUT_S, stdin=state.archive
            )
        except SandboxError as error:
            logger.info("sandbox %s is not recycled: %s", container.id[:12], error)
            return None
        if renewed.exit_code != 0 or renewed.output != state.listing:
            logger.info("sandbox %s is not recycled: not as a fresh one", container.id[:12])
            return None
        return state


def _capture(container: Recyclable) -> FileState:
    """Raises `SandboxError` if the image cannot be recycled safely."""
    code, stdout, stderr = container.run(_ROOTS, max_bytes=65536, timeout_s=TIMEOUT_S)
    roots = tuple(stdout.decode("utf-8", "surrogateescape").split("\0"))[:-1]
    if code == 3 or not roots:
        raise SandboxError(" ".join(stderr.decode(errors="replace").split()) or "nothing to write")
    for root in roots:
        if root in {"/", "/usr", "/bin", "/usr/bin"} or root.startswith(("/usr/bin/", "/bin/")):
            raise SandboxError(f"its user may write {root}, where programs are")
    _, stray, _ = container.run(f"{_PATH}\n{_STRAY_FILES}", max_bytes=65536, timeout_s=TIMEOUT_S)
    if stray.strip():
        name = stray.decode(errors="replace").strip()
        raise SandboxError(f"its user may write {name} in a folder that is not its own")
    return _state_of(container, roots)


def _state_of(container: Recyclable, roots: tuple[str, ...], commit: str = "") -> FileState:
    archive = _run(container, roots, 'tar -cf - -C / "${roots[@]#/}"', max_bytes=MAX_ARCHIVE_BYTES)
    return FileState(roots, archive, _run(container, roots, _LISTING).decode(), commit)


def _script(roots: tuple[str, ...], script: str) -> str:
    return f"{_PATH}\nroots=({' '.join(map(shlex.quote, roots))})\n{script}"


def _run(
    container: Recyclable, roots: tuple[str, ...], script: str, *, max_bytes: int = 65536
) -> bytes:
    code, stdout, stderr = container.run(
        _script(roots, script), max_bytes=max_bytes, timeout_s=TIMEOUT_S
    )
    if code != 0 or not 0 < len(stdout) <= max_bytes:
        reason = " ".join(stderr.decode(errors="replace").split())[:200]
        raise SandboxError(reason or f"status {code} and {len(stdout)} bytes")
    return stdout
