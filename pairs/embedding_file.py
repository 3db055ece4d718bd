"""Vectors on disk, appended in batches and found again by the digest of their image file.

Side by side lie `vectors.f32` (read as a memory map), `seen.bin` with one fixed record for each
vector, and `about.json`, which says what they are of. A vector counts once its record is written:
a run that was killed loses at most its last batch.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.errors import EmbeddingError
from contextrl.pairs.store import named, write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contextrl.pairs.embedders import Vectors

VECTORS, SEEN, ABOUT, LOCK = "vectors.f32", "seen.bin", "about.json", "lock"
_DIGEST = 32
_PIXELS = 16
_RECORD = _DIGEST + _PIXELS + 8


@dataclass(frozen=True, slots=True)
class SeenImage:
    file_digest: bytes
    """sha256 of the file."""
    pixel_digest: bytes
    """Of what it shows: equal for one picture in two encodings."""
    look: int
    """64 bits of perceptual hash."""


class _About(Record):
    embedder: str
    width: int


class EmbeddingFile:
    """Memory holds a small record an image; the vectors stay on disk."""

    def __init__(self, folder: Path, embedder: str) -> None:
        """Raises `EmbeddingError` for another embedder's vectors, or another run at work there."""
        self._folder = folder
        self._embedder = embedder
        with named(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise EmbeddingError(
                f"expected {folder} for this run alone, found another run at work in it; wait, or "
                "choose another --work folder"
            ) from error
        self._width = self._read_about()
        self.images: list[SeenImage] = []
        self._number: dict[bytes, int] = {}
        self._load()

    def close(self) -> None:
        """Another run may open the folder."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.images)

    def number_of(self, file_digest: bytes) -> int | None:
        """The row of `vectors`; None for an image that was not embedded."""
        return self._number.get(file_digest)

    def append(self, images: Sequence[SeenImage], vectors: Vectors) -> None:
        """Raises `EmbeddingError` for vectors of another length than those at hand."""
        if self._width is None:
            self._width = int(vectors.shape[1])
            about = _About(embedder=self._embedder, width=self._width)
            with named(self._folder):
                write_whole(self._folder / ABOUT, [about.model_dump_json().encode()])
        if vectors.shape != (len(images), self._width):
            raise EmbeddingError(
                f"{self._embedder}: expected {len(images)} vectors of {self._width} numbers, found "
                f"{vectors.shape}; embed everything with one model"
            )
        records = b"".join(
            each.file_digest + each.pixel_digest + each.look.to_bytes(8, "big") for each in images
        )
        body = np.ascontiguousarray(vectors, np.float32).tobytes()
        with named(self._folder):
            for name, block in ((VECTORS, body), (SEEN, records)):
                with (self._folder / name).open("ab") as stream:
                    stream.write(block)
        self._remember(images)

    def vectors(self) -> Vectors:
        """[images, width], mapped from disk."""
        path = self._folder / VECTORS
        shape = (len(self), self._width or 0)
        if not len(self):
            return np.zeros(shape, np.float32)
        return np.memmap(path, np.float32, "r", shape=shape)

    def looks(self) -> NDArray[np.uint64]:
        return np.array([image.look for image in self.images], np.uint64)

    def _remember(self, images: Sequence[SeenImage]) -> None:
        for image in images:
            self._number[image.file_digest] = len(self.images)
            self.images.append(image)

    def _read_about(self) -> int | None:
        path = self._folder / ABOUT
        if not path.exists():
            return None
        try:
            about = _About.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise EmbeddingError(f"{path}: expected a record of embeddings; remove it") from error
        if about.embedder != self._embedder:
            raise EmbeddingError(
                f"expected embeddings by {self._embedder} in {self._folder}, found some by "
                f"{about.embedder}; choose another --work folder"
            )
        return about.width

    def _load(self) -> None:
        """Cut both files back to the vectors that are whole."""
        if self._width is None:
            return
        paths = {self._folder / SEEN: _RECORD, self._folder / VECTORS: 4 * self._width}
        with named(self._folder):
            whole = min(
                path.stat().st_size // size if path.exists() else 0 for path, size in paths.items()
            )
            for path, size in paths.items():
                if path.exists():
                    os.truncate(path, whole * size)
            body = (self._folder / SEEN).read_bytes() if whole else b""
        records = (body[at : at + _RECORD] for at in range(0, len(body), _RECORD))
        self._remember(
            [
                SeenImage(
                    file_digest=record[:_DIGEST],
                    pixel_digest=record[_DIGEST : _DIGEST + _PIXELS],
                    look=int.from_bytes(record[-8:], "big"),
                )
                for record in records
            ]
        )
