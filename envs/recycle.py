"""A used container made fresh again, with proof, for short episodes by the thousand.

Starting and removing a container costs more processor time than a short episode does. Where code
runs as an unprivileged user it leaves behind nothing but processes, System V objects, and files in
the few folders that user may write. So: what those folders held at the start is kept outside the
container; after use every process is killed, the folders are emptied and filled again, and a
listing of them with their contents, and of System V objects, must equal that of a fresh container.
The shell that did this is the next episode's: starting one in a container costs more than all else.
One that differs in anything, or takes too long, is removed, as without recycling.

Images that run as root, and images whose user may write where programs live, are never recycled.
"""

from __future__ import annotations

import logging
import shlex
import threading
from dataclasses import dataclass
from typing import Protocol

from contextrl.envs.errors import SandboxError
from contextrl.envs.shell import PersistentShell

logger = logging.getLogger(__name__)

MAX_ARCHIVE_BYTES = 64 * 1024 * 1024
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
_LISTING = r"""
{
  find "${roots[@]}" -printf '%p %y %m %s %l\0' | LC_ALL=C sort -z
  find "${roots[@]}" -type f -exec sha256sum -z {} + | LC_ALL=C sort -z
  cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg
} | sha256sum
"""
_REFILL = r"""
find "${roots[@]}" -mindepth 1 -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
find "${roots[@]}" -mindepth 1 -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
find "${roots[@]}" -mindepth 1 -delete
tar -xpf - -C / 2>/dev/null  # it cannot set the time of folders of root; the listing judges
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
class Pristine:
    """What the writable folders of an image hold before anybody used them."""

    roots: tuple[str, ...]
    archive: bytes
    listing: str
    """A digest of it."""


class Recycler:
    """Knows the pristine state of each image. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Pristine | None] = {}
        self._uses: dict[str, int] = {}

    def learn(self, image: str, container: Recyclable) -> None:
        """Remember `container`, which nobody used yet, as what `image` starts as."""
        with self._lock:
            if image in self._known:
                return
            try:
                self._known[image] = _capture(container)
            except SandboxError as error:
                logger.info("containers of %s are not recycled: %s", image, error)
                self._known[image] = None

    def renew(self, image: str, container: Recyclable) -> bool:
        """Whether the container is as fresh as a new one now; if not, remove it."""
        with self._lock:
            pristine = self._known.get(image)
            uses = self._uses.pop(container.id, 0) + 1
            if pristine is None or uses >= MAX_USES:
                return False
        try:
            alone = container.after.run(_ALONE, timeout_s=TIMEOUT_S)
            renewed = container.after.run(
                _script(pristine.roots, _REFILL + _LISTING),
                timeout_s=TIMEOUT_S,
                stdin=pristine.archive,
            )
        except SandboxError as error:
            logger.info("sandbox %s is not recycled: %s", container.id[:12], error)
            return False
        if alone.exit_code != 0 or renewed.exit_code != 0 or renewed.output != pristine.listing:
            logger.info("sandbox %s is not recycled: not as a fresh one", container.id[:12])
            return False
        with self._lock:
            self._uses[container.id] = uses
        return True


def _capture(container: Recyclable) -> Pristine:
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
    archive = _run(container, roots, 'tar -cf - -C / "${roots[@]#/}"', max_bytes=MAX_ARCHIVE_BYTES)
    return Pristine(roots, archive, _run(container, roots, _LISTING).decode())


def _script(roots: tuple[str, ...], script: str) -> str:
    return f"{_PATH}\nroots=({' '.join(map(shlex.quote, roots))})\n{script}"


def _run(
    container: Recyclable, roots: tuple[str, ...], script: str, *, max_bytes: int = 65536
) -> bytes:
    code, stdout, stderr = container.run(
        _script(roots, script), max_bytes=max_bytes, timeout_s=TIMEOUT_S
    )
    if code != 0 or len(stdout) > max_bytes:
        reason = " ".join(stderr.decode(errors="replace").split())[:200]
        raise SandboxError(reason or f"status {code} and {len(stdout)} bytes")
    return stdout
