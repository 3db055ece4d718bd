"""Folders that say in their name whose they are, so that a killed process leaves none for good."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from contextrl.envs.cleanup import owner_alive, owner_label

CACHE = Path("~/.cache/contextrl")
_FOLDERS = ("ns", "tree", "base", "index", "build")
"""What we make in the temporary directory, as `contextrl-<one of these>-<lease>-...`."""
_SCRATCH = (".partial-", ".unpacking-", ".download-")
"""What becomes part of a cache once it is whole."""


def lease() -> str:
    """`host-pid-birth` of this process, for a name."""
    return f"{_host()}-{owner_label(os.getpid()).replace(':', '-')}"


def new_folder(prefix: str, parent: Path | None = None) -> Path:
    """A fresh folder that carries this process's lease; the temporary directory is its parent."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{lease()}-", dir=parent))


@contextlib.contextmanager
def leased_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """As `new_folder`, and gone at the end of the block, unless it was renamed inside."""
    folder = new_folder(prefix, parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders(parent: Path, prefix: str) -> list[Path]:
    """No folder of `new_folder` is left below `parent` whose owner on this host is gone.

    A cache may lie on a disk that many hosts share, so those of another host are its own to judge.
    """
    removed = []
    for folder in sorted(parent.glob(f"{prefix}*-*-*-*")):
        host, pid, birth, *_ = folder.name.removeprefix(prefix).split("-")
        ours = host == _host() and folder.is_dir() and not folder.is_symlink()
        if ours and not owner_alive(f"{pid}:{birth}"):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def remove_all_stale() -> list[Path]:
    """As `remove_stale_folders`, wherever we make any."""
    temporary, cache = Path(tempfile.gettempdir()), CACHE.expanduser()
    places = [(temporary, f"contextrl-{kind}-") for kind in _FOLDERS]
    places += [(folder, prefix) for folder in (cache, *cache.glob("*/")) for prefix in _SCRATCH]
    return [folder for parent, prefix in places for folder in remove_stale_folders(parent, prefix)]


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
