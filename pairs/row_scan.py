"""Rows of image questions, read once; each distinct image file is embedded once, in batches."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from PIL.Image import Image

from contextrl.pairs.duplicates import look_of
from contextrl.pairs.embedders import Embedder
from contextrl.pairs.embedding_file import EmbeddingFile, SeenImage
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.errors import ImageError, PairFileError
from contextrl.pairs.images import open_image, pixel_digest
from contextrl.pairs.stages import StageCount
from contextrl.pairs.vqa import VQARow

WAITING_PIXELS = 100_000_000
"""Of decoded images in memory at once, 300 MB: a batch of posters is embedded in parts."""

Sources = Sequence[tuple[str, Sequence[VQARow]]]
"""Named sets of rows; caps count by name."""
Progress = Callable[[str, int, int], None]


class RowStage(StrEnum):
    """What a row must be, in the order it is asked."""

    READ = "its row can be read"
    ONE_IMAGE = "it shows one image"
    ANSWERED = "it asks and has an answer"
    OPENS = "its image opens"


@dataclass(frozen=True, slots=True)
class ScannedRow:
    """What is kept of a row; its image and text are read again when a pair is made of it."""

    source: int
    number: int
    row_id: str
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
        self._seen = 0
        self._lost: Counter[RowStage] = Counter()
        self.reasons: Counter[str] = Counter()

    def rows(self, sources: Sources, on_progress: Progress) -> Iterator[ScannedRow]:
        total = sum(len(rows) for _, rows in sources)
        for source, (_, rows) in enumerate(sources):
            for number in range(len(rows)):
                self._seen += 1
                row = self._usable(rows, number)
                if row is not None:
                    image = self._image_number(row)
                    if image is not None:
                        yield ScannedRow(
                            source=source,
                            number=number,
                            row_id=row.row_id,
                            image=image,
                            question=hashlib.sha256(normal_question(row.problem).encode()).digest(),
                            answer=row.answer.strip(),
                        )
                on_progress("rows", self._seen, total)
        self._flush()

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
            self._lose(RowStage.READ, error)
            return None
        if len(row.images) != 1:
            self._lost[RowStage.ONE_IMAGE] += 1
            return None
        if not row.answer.strip() or not normal_question(row.problem):
            self._lost[RowStage.ANSWERED] += 1
            return None
        return row

    def _image_number(self, row: VQARow) -> int | None:
        """Its place in the embedding file, where it will be after the next flush at the latest."""
        digest = hashlib.sha256(row.images[0]).digest()
        known = self._vectors.number_of(digest)
        if known is not None:
            return known
        if digest not in self._waiting:
            try:
                image = open_image(row.images[0], row_id=row.row_id)
            except ImageError as error:
                self._lose(RowStage.OPENS, error)
                return None
            pixels = bytes.fromhex(pixel_digest(image))[:16]
            self._waiting[digest] = (SeenImage(digest, pixels, look_of(image)), image)
        number = len(self._vectors) + list(self._waiting).index(digest)
        n_pixels = sum(image.width * image.height for _, image in self._waiting.values())
        if len(self._waiting) >= self._batch or n_pixels >= WAITING_PIXELS:
            self._flush()
        return number

    def _flush(self) -> None:
        if self._waiting:
            seen, images = zip(*self._waiting.values(), strict=True)
            self._vectors.append(seen, self._embedder.embed(images))
            self._waiting.clear()

    def _lose(self, stage: RowStage, error: Exception) -> None:
        self._lost[stage] += 1
        self.reasons[str(error).partition(": ")[2] or str(error)] += 1


def normal_question(problem: str) -> str:
    """Equal for two ways of writing one question."""
    return " ".join(problem.replace(IMAGE_MARK, " ").casefold().split())
