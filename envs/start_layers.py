"""Start states of tasks as overlay layers: a task that comes back starts without its script.

What a start script changed lies in the upper half of its sandbox's overlay, and nothing else does
before the agent's first command. A copy of it, between the image and a new upper half, is the
same start state, made and proven once.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import stat
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from contextrl.envs.leases import new_folder
from contextrl.envs.recycle import WORTH_KEEPING, StartKey
from contextrl.envs.types import Task

logger = logging.getLogger(__name__)

MAX_LAYER_BYTES = 64 * 1024 * 1024
MAX_BYTES = 1024 * 1024 * 1024
"""Of all layers: what is mounted cannot be taken away, so later tasks run their scripts."""
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
"""Says of a folder that it hides the layer below; which one depends on who mounted."""


class _NotKept(Exception):
    """Something that a layer cannot hold."""


@dataclass(frozen=True, slots=True)
class StartLayer:
    folder: Path
    commit: str


class StartLayers:
    """Layers of one provider, removed when it closes. Safe from many threads."""

    def __init__(self, prefix: str) -> None:
        """`prefix`: of the folder in the temporary directory, for whoever removes stale ones."""
        self._prefix = prefix
        self._home: Path | None = None
        self._lock = threading.Lock()
        self._starts: Counter[StartKey] = Counter()
        self._layers: dict[StartKey, StartLayer] = {}
        self._left = MAX_BYTES
        self._names = itertools.count()

    def find(self, task: Task) -> StartLayer | None:
        with self._lock:
            return self._layers.get(StartKey.of(task))

    def keep(self, task: Task, upper: Path, commit: str) -> None:
        """`upper` holds what `task`'s start script changed. Copied where the task came back."""
        key = StartKey.of(task)
        with self._lock:
            self._starts[key] += 1
            if self._starts[key] != WORTH_KEEPING or self._left <= 0:
                return
            if self._home is None:
                self._home = new_folder(self._prefix)
                self._home.chmod(0o755)
            folder = self._home / str(next(self._names))
        try:
            size = _copy(upper, folder)
        except (OSError, _NotKept) as error:
            logger.info("the start of %s is made anew each time: %s", task.task_id, error)
            shutil.rmtree(folder, ignore_errors=True)
            return
        with self._lock:
            self._left -= size
            self._layers[key] = StartLayer(folder, commit)

    def close(self) -> None:
        with self._lock:
            self._layers.clear()
            home, self._home = self._home, None
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)


def _copy(upper: Path, layer: Path) -> int:
    """The bytes copied. Never follows a link: programs of the image may still be running there."""
    size = 0
    for place, folders, files, at in os.fwalk(upper, follow_symlinks=False):
        target = layer / Path(place).relative_to(upper)
        target.mkdir()
        _same_owner(target, os.fstat(at))
        for name in _OPAQUE:
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(f"/proc/self/fd/{at}", name))
        for name in (*files, *(name for name in folders if _is_link(name, at))):
            size += _copy_entry(name, at, target / name)
            if size > MAX_LAYER_BYTES:
                raise _NotKept(f"it changes more than {MAX_LAYER_BYTES >> 20} MiB of files")
    return size


def _copy_entry(name: str, at: int, target: Path) -> int:
    status = os.stat(name, dir_fd=at, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(os.readlink(name, dir_fd=at))
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # overlayfs's mark of a deletion
        os.mknod(target, stat.S_IFCHR)
    elif stat.S_ISREG(status.st_mode):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        with open(descriptor, "rb") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
        _same_owner(target, status)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        return status.st_size
    else:
        raise _NotKept(f"{name} is neither file, folder nor link")
    return 0


def _is_link(name: str, at: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _same_owner(target: Path, status: os.stat_result) -> None:
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
