"""Answers that were paid for, one file each, named by the digest of what was asked."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from pydantic import ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.store import write_whole

RecordT = TypeVar("RecordT", bound=Record)


class RecordCache(Generic[RecordT]):
    """Any number of threads may get and put."""

    def __init__(self, folder: Path, kind: type[RecordT]) -> None:
        self.folder = folder
        self._kind = kind
        # Weak: the lock of a key lives as long as a thread holds or awaits it.
        self._locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def get(self, key: str) -> RecordT | None:
        try:
            return self._kind.model_validate_json((self.folder / f"{key}.json").read_text("utf-8"))
        except (FileNotFoundError, ValidationError):
            return None  # a file of an older version is asked again

    def put(self, key: str, record: RecordT) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{key}.json", [record.model_dump_json().encode()], to_disk=False)

    @contextlib.contextmanager
    def asking(self, key: str) -> Iterator[None]:
        """One thread at a time, so that what several rows ask at once is paid for once."""
        with self._guard:
            lock = self._locks.setdefault(key, _Lock())
        with lock.held:
            yield


class _Lock:
    """`threading.Lock` itself promises no weak references."""

    def __init__(self) -> None:
        self.held = threading.Lock()


def key_of(*parts: str) -> str:
    """A digest of all parts, in their order."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()
