"""Vectors on disk, appended in batches and found again by the digest of their image file.

Side by side lie `vectors.f32` and `thumbs.u8` (read as memory maps), `seen.bin` with one fixed
record for each vector, and `about.json`, which says what they are of. A vector counts once its
record is written: a run that was killed loses at most its last batch. `refused.jsonl` names the
images that the embedder would not take, so that no later run stops at them again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.duplicates import THUMB_BYTES
from contextrl.pairs.errors import EmbeddingError
from contextrl.pairs.store import named, write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contextrl.pairs.embedders import Vectors

VECTORS, THUMBS, SEEN, ABOUT = "vectors.f32", "thumbs.u8", "seen.bin", "about.json"
REFUSED, LOCK = "refused.jsonl", "lock"
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
    width: int = Field(gt=0)


class _Refused(Record):
    file_digest: str
    embedder: str
    reason: str


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
        try:
            self._width = self._read_about()
            self.images: list[SeenImage] = []
            self._number: dict[bytes, int] = {}
            self._load()
            self._refused = self._read_refused()
        except BaseException:
            self.close()
            raise

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

    def why_refused(self, file_digest: bytes) -> str | None:
        """What the embedder said of an image that it would not take."""
        return self._refused.get(file_digest)

    def refuse(self, file_digest: bytes, reason: str) -> None:
        """Later runs will not ask for it again; who removes `refused.jsonl` asks for all."""
        record = _Refused(
            file_digest=file_digest.hex(), embedder=self._embedder, reason=reason
        ).model_dump_json()
        with named(self._folder), (self._folder / REFUSED).open("ab") as stream:
            stream.write(record.encode() + b"\n")
        self._refused[file_digest] = reason

    def append(
        self, images: Sequence[SeenImage], vectors: Vectors, thumbs: NDArray[np.uint8]
    ) -> None:
        """Raises `EmbeddingError` for vectors of another length than those at hand, or of NaN."""
        if not np.isfinite(vectors).all():
            # One would be the neighbour of nothing or of everything, in every later run.
            raise EmbeddingError(
                f"{self._embedder}: expected vectors of finite numbers, found NaN or infinity"
            )
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
        shown = np.ascontiguousarray(thumbs, np.uint8).reshape(len(images), THUMB_BYTES).tobytes()
        with named(self._folder):
            for name, block in ((VECTORS, body), (THUMBS, shown), (SEEN, records)):
                with (self._folder / name).open("ab") as stream:
                    stream.write(block)
        self._remember(images)

    def vectors(self) -> Vectors:
        """[images, width], mapped from disk."""
        return np.asarray(self._mapped(VECTORS, np.float32, self._width or 0))

    def digests(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """[len(numbers), 32]: of the files of these images."""
        joined = b"".join(self.images[number].file_digest for number in numbers)
        return np.frombuffer(joined, np.uint8).reshape(len(numbers), _DIGEST)

    def thumbs(self) -> NDArray[np.uint8]:
        """[images, THUMB_BYTES], mapped from disk."""
        return np.asarray(self._mapped(THUMBS, np.uint8, THUMB_BYTES))

    def _mapped(self, name: str, kind: type[np.generic], width: int) -> NDArray[Any]:
        shape = (len(self), width)
        if not len(self):
            return np.zeros(shape, kind)
        return np.memmap(self._folder / name, kind, "r", shape=shape)

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
            raise EmbeddingError(
                f"{path}: expected a record of embeddings, found another; remove it, and what was "
                "embedded there is embedded again"
            ) from error
        if about.embedder != self._embedder:
            raise EmbeddingError(
                f"expected embeddings by {self._embedder} in {self._folder}, found some by "
                f"{about.embedder}; choose another --work folder"
            )
        return about.width

    def _read_refused(self) -> dict[bytes, str]:
        path = self._folder / REFUSED
        if not path.exists():
            return {}
        with named(path):
            lines = path.read_bytes().splitlines()
        found = {}
        for line in lines:
            with contextlib.suppress(ValidationError, ValueError):  # cut short: it is asked again
                refused = _Refused.model_validate_json(line)
                if refused.embedder == self._embedder:
                    found[bytes.fromhex(refused.file_digest)] = refused.reason
        return found

    def _load(self) -> None:
        """Cut the files back to the vectors that are whole; all of them where nothing says whose.

        Without `about.json` they are of an unknown embedder and width.
        """
        width = self._width
        sizes = {SEEN: _RECORD, THUMBS: THUMB_BYTES, VECTORS: 4 * (width or 0)}
        paths = {self._folder / name: size for name, size in sizes.items()}
        with named(self._folder):
            whole = 0
            if width is not None:
                whole = min(
                    path.stat().st_size // size if path.exists() else 0
                    for path, size in paths.items()
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
