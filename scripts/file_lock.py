"""One holder at a time, among threads and processes. A killed one's lock is gone with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def take(path: Path, *, wait: bool) -> int:
    """An open file that holds the lock on `path` until it is closed; it says whose the lock is.

    Raises `BlockingIOError` if somebody else has it and we are not to wait.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(fd)
        raise
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its owner's name
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def holder(path: Path) -> str:
    """Process id of who took the lock last; a question mark where it does not say."""
    try:
        return path.read_text(encoding="ascii").strip() or "?"
    except (OSError, ValueError):
        return "?"
