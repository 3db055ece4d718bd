"""Rows of image questions, read once; each distinct image file is embedded once, in batches."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from PIL.Image import Image

from contextrl.pairs.duplicates import look_of, thumb_of
from contextrl.pairs.embedders import Embedder
from contextrl.pairs.embedding_file import EmbeddingFile, SeenImage
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.errors import ImageError, PairFileError
from contextrl.pairs.images import open_image, pixel_digest
from contextrl.pairs.stages import StageCount
from contextrl.pairs.vqa import VQARow

WAITING_PIXELS = 100_000_000
"""Of decoded images in memory at once, 400 MB: a batch of posters is embedded in parts."""

Sources = Sequence[tuple[str, Sequence[VQARow]]]
"""Named sets of rows; caps count by name, or by what a row itself says."""
Progress = Callable[[str, int, int], None]


class RowStage(StrEnum):
    """What a row must be, in the order it is asked."""

    READ = "its row can be read"
    ONE_IMAGE = "it shows one image"
    ANSWERED = "it asks and has an answer"
    OPENS = "its image opens"
    EMBEDDED = "the embedder takes its image"


@dataclass(frozen=True, slots=True)
class ScannedRow:
    """What is kept of a row; its image and text are read again when a pair is made of it."""

    source: int
    number: int
    row_id: str
    set_name: str
    """What caps count by: what the row says, or its source's name."""
    image: int
    """Its place in the embedding file."""
    question: bytes
    """Digest of its normal form."""
    answer: str


class RowScan:
    """Goes through the rows once and embeds what is new."""

    def __init__(self, vectors: EmbeddingFile, embedder: Embedder, batch: int) -> None:
        self._vectors = vectors
        self._embedder = embedder
        self._batch = batch
        self._waiting: dict[bytes, tuple[SeenImage, Image]] = {}
        self._waiting_pixels = 0
        self._seen = 0
        self._lost: Counter[RowStage] = Counter()
        self.reasons: Counter[str] = Counter()

    def rows(self, sources: Sources, on_progress: Progress) -> list[ScannedRow]:
        """The rows that can stand in a pair, in order."""
        total = sum(len(rows) for _, rows in sources)
        waiting: list[tuple[ScannedRow, bytes]] = []
        for source, (name, rows) in enumerate(sources):
            for number in range(len(rows)):
                self._seen += 1
                row = self._usable(rows, number)
                digest = None if row is None else self._image_digest(row)
                if row is not None and digest is not None:
                    scanned = ScannedRow(
                        source=source,
                        number=number,
                        row_id=row.row_id,
                        set_name=row.source or name,
                        image=-1,
                        question=hashlib.sha256(normal_question(row.problem).encode()).digest(),
                        answer=row.answer.strip(),
                    )
                    waiting.append((scanned, digest))
                on_progress("rows", self._seen, total)
        self._flush()
        # Which place an image has is known once it is embedded, or refused.
        kept = []
        for scanned, digest in waiting:
            image = self._vectors.number_of(digest)
            if image is None:
                reason = self._vectors.why_refused(digest) or "its image was not embedded"
                self._lose(RowStage.EMBEDDED, f"{scanned.row_id}: {reason}")
            else:
                kept.append(replace(scanned, image=image))
        return kept

    def stages(self) -> list[StageCount]:
        stages, count = [], self._seen
        for stage in RowStage:
            kept = count - self._lost[stage]
            stages.append(StageCount(name=stage, unit="rows", seen=count, kept=kept))
            count = kept
        return stages

    def _usable(self, rows: Sequence[VQARow], number: int) -> VQARow | None:
        try:
            row = rows[number]
        except PairFileError as error:
            self._lose(RowStage.READ, str(error))
            return None
        if len(row.images) != 1:
            self._lost[RowStage.ONE_IMAGE] += 1
            return None
        if not row.answer.strip() or not normal_question(row.problem):
            self._lost[RowStage.ANSWERED] += 1
            return None
        return row

    def _image_digest(self, row: VQARow) -> bytes | None:
        """Of its file, which is embedded or refused after the next flush; None: does not open."""
        digest = hashlib.sha256(row.images[0]).digest()
        known = self._vectors.number_of(digest) is not None
        if known or digest in self._waiting or self._vectors.why_refused(digest) is not None:
            return digest
        try:
            image = open_image(row.images[0], row_id=row.row_id)
        except ImageError as error:
            self._lose(RowStage.OPENS, str(error))
            return None
        pixels = bytes.fromhex(pixel_digest(image))[:16]
        self._waiting[digest] = (SeenImage(digest, pixels, look_of(image)), image)
        self._waiting_pixels += image.width * image.height
        if len(self._waiting) >= self._batch or self._waiting_pixels >= WAITING_PIXELS:
            self._flush()
        return digest

    def _flush(self) -> None:
        if not self._waiting:
            return
        seen, images = zip(*self._waiting.values(), strict=True)
        embedded = self._embedder.embed(images)
        for at, reason in embedded.refused.items():
            self._vectors.refuse(seen[at].file_digest, reason)
        kept = [at for at in range(len(images)) if at not in embedded.refused]
        if kept:
            thumbs = np.stack([thumb_of(images[at]) for at in kept])
            self._vectors.append([seen[at] for at in kept], embedded.vectors[kept], thumbs)
        self._waiting.clear()
        self._waiting_pixels = 0

    def _lose(self, stage: RowStage, said: str) -> None:
        self._lost[stage] += 1
        self.reasons[said.partition(": ")[2] or said] += 1


def normal_question(problem: str) -> str:
    """Equal for two ways of writing one question."""
    return " ".join(problem.replace(IMAGE_MARK, " ").casefold().split())
