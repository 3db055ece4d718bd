"""Answers that were paid for, one file each, named by the digest of what was asked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.store import write_whole

RecordT = TypeVar("RecordT", bound=Record)


class RecordCache(Generic[RecordT]):
    """Any number of threads may get and put."""

    def __init__(self, folder: Path, kind: type[RecordT]) -> None:
        self.folder = folder
        self._kind = kind

    def get(self, key: str) -> RecordT | None:
        try:
            return self._kind.model_validate_json((self.folder / f"{key}.json").read_text("utf-8"))
        except (FileNotFoundError, ValidationError):
            return None  # a file of an older version is asked again

    def put(self, key: str, record: RecordT) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{key}.json", [record.model_dump_json().encode()], to_disk=False)


def key_of(*parts: str) -> str:
    """A digest of all parts, in their order."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()
