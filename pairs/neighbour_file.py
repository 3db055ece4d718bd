"""Neighbours on disk, block after block, so that a search that was killed goes on.

A file is named by what its numbers depend on: which images were searched, with which vectors, how,
and how many neighbours each query has. A file of another search is never read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contextrl.pairs.neighbours import Neighbours, nearest_at_most
from contextrl.pairs.store import named

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREFIX = "neighbours-"


class NeighbourFile:
    """`Saved` in one file of fixed records: k numbers and k cosines a query."""

    def __init__(self, folder: Path, key: str, k: int) -> None:
        self.path = folder / f"{PREFIX}{key}.bin"
        self._record = np.dtype([("numbers", "<i8", (k,)), ("cosines", "<f4", (k,))])
        with named(self.path):
            if self.path.exists():  # the last record may be half of one
                whole = self.path.stat().st_size // max(self._record.itemsize, 1)
                os.truncate(self.path, whole * self._record.itemsize)
            else:
                self.path.touch()

    def found(self) -> Neighbours:
        rows = np.empty(0, self._record)
        if self._record.itemsize:
            with named(self.path):
                rows = np.fromfile(self.path, self._record)
        return Neighbours(
            np.ascontiguousarray(rows["numbers"]), np.ascontiguousarray(rows["cosines"])
        )

    def add(self, more: Neighbours) -> None:
        rows = np.empty(len(more.numbers), self._record)
        rows["numbers"], rows["cosines"] = more.numbers, more.cosines
        with named(self.path), self.path.open("ab") as stream:
            stream.write(rows.tobytes())


class SearchFolder:
    """The files of one run's searches; `keep_only_used` drops those of runs before it."""

    def __init__(self, folder: Path, embedder: str) -> None:
        self._folder = folder
        self._embedder = embedder
        self._used: set[Path] = set()

    def file(
        self, digests: NDArray[np.uint8], queries: NDArray[np.int64], k: int, how: str = "exact"
    ) -> NeighbourFile:
        """`digests` [images, 32] name the images that are searched, and with the embedder their
        vectors; `how` they are searched."""
        k = nearest_at_most(k, len(digests))
        key = hashlib.sha256(f"{self._embedder}\0{how}\0{k}\0{len(digests)}\0".encode())
        key.update(np.ascontiguousarray(digests).tobytes())
        key.update(np.ascontiguousarray(queries, "<i8").tobytes())
        file = NeighbourFile(self._folder, key.hexdigest()[:24], k)
        self._used.add(file.path)
        return file

    def keep_only_used(self) -> None:
        with named(self._folder):
            for path in self._folder.glob(f"{PREFIX}*.bin"):
                if path not in self._used:
                    path.unlink()
