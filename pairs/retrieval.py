"""Image questions -> pairs: near in embedding space, the same question, different answers.

Rows are read one at a time and each distinct image file is embedded once, into a file that a later
run goes on from. Neighbours are searched exactly. Counts are of rows first, then of unordered
couples; each couple becomes two pairs, so that either image is right once.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contextrl.envs.types import Record
from contextrl.pairs.duplicates import SeenCouples
from contextrl.pairs.embedders import Embedder
from contextrl.pairs.embedding_file import EmbeddingFile, SeenImage
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.image_groups import grouped
from contextrl.pairs.images import ImageStore
from contextrl.pairs.neighbours import Neighbours, approximate_neighbours, exact_neighbours
from contextrl.pairs.row_scan import Progress, RowScan, ScannedRow, Sources
from contextrl.pairs.stages import StageCount
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

MINER = "retrieval/1"
SameAnswer = Callable[[str, str], bool]
Couple = tuple[ScannedRow, ScannedRow, float]
"""Two rows and the cosine of their images."""


class Questions(StrEnum):
    """Which two rows may be compared."""

    SAME = "same"
    """They ask the same, so the other answer is known to be true of the other image."""
    ANY = "any"
    """As in the paper: what is true of the other image is for a judge to say."""


class CoupleStage(StrEnum):
    """What a couple of rows must be, in the order it is asked."""

    TWO_PICTURES = "two different pictures"
    QUESTION = "comparable questions"
    ANSWERS = "different answers"
    FRESH = "no near-duplicate of another pair"
    CAPS = "within the caps"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSettings:
    least_cosine: float = 0.85
    neighbours: int = 10
    """Looked at for each image."""
    questions: Questions = Questions.SAME
    duplicate_bits: int = 4
    """Of 64: two looks that differ in no more are one."""
    per_source: int | None = None
    """Couples that show an image of one source."""
    per_image: int = 4
    """Couples that show one image."""
    limit: int | None = None
    """Pairs in all."""
    batch: int = 32
    """Images embedded at once."""
    cells_probed: int | None = None
    """Search an inverted file instead of everything."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not -1 <= self.least_cosine <= 1 or min(self.neighbours, self.batch) < 1:
            raise ValueError("expected a cosine from -1 to 1, and at least one neighbour and image")


class Retrieved(Record):
    pairs: tuple[ImagePair, ...]
    """Sorted by id; their images are in the store."""
    stages: tuple[StageCount, ...]
    unread: dict[str, int]
    """Why rows were left out, and how many: the messages without their row."""


def retrieve(
    sources: Sources,
    embedder: Embedder,
    work: Path,
    store: ImageStore,
    settings: RetrievalSettings,
    same_answer: SameAnswer,
    *,
    on_progress: Progress = lambda what, done, total: None,
) -> Retrieved:
    """Pairs and stage counts; `work` keeps the embeddings for the next run.

    Raises:
        EmbeddingError: the embedder fails, or `work` holds another embedder's vectors.
        SourceError: faiss or imagehash is not installed.
    """
    with EmbeddingFile(work, embedder.name) as vectors:
        return _retrieve(sources, embedder, vectors, store, settings, same_answer, on_progress)


def _retrieve(
    sources: Sources,
    embedder: Embedder,
    vectors: EmbeddingFile,
    store: ImageStore,
    settings: RetrievalSettings,
    same_answer: SameAnswer,
    on_progress: Progress,
) -> Retrieved:
    scan = RowScan(vectors, embedder, settings.batch)
    rows = list(scan.rows(sources, on_progress))
    by_image: defaultdict[int, list[ScannedRow]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    used = np.array(sorted(by_image), np.int64)
    near = _neighbours(vectors, used, settings, on_progress)

    stages = scan.stages()
    n_couples = len(used) * (len(used) - 1) // 2
    alike = [
        (int(used[first]), int(used[second]), cosine)
        for first, second, cosine in near.couples(settings.least_cosine)
    ]
    found = sum(1 for _ in near.couples(-1.0))
    stages += [
        _count(f"among the {settings.neighbours} nearest", n_couples, found),
        _count(f"cosine at least {settings.least_cosine:g}", found, len(alike)),
    ]
    lost: Counter[CoupleStage] = Counter()
    candidates: list[Couple] = []
    for first_image, second_image, cosine in alike:
        for first in by_image[first_image]:
            for second in by_image[second_image]:
                stage = _rejection(first, second, vectors.images, settings, same_answer)
                if stage is None:
                    candidates.append((first, second, cosine))
                else:
                    lost[stage] += 1
    chosen = _choose(candidates, vectors.images, sources, settings, lost)
    count = len(candidates) + sum(lost[stage] for stage in list(CoupleStage)[:3])
    for stage in CoupleStage:
        stages.append(_count(stage, count, count - lost[stage]))
        count -= lost[stage]
    for each in stages:
        logger.info("%s: kept %d/%d %s", each.name, each.kept, each.seen, each.unit)
    pictures = {each.file_digest.hex(): each.pixel_digest.hex() for each in vectors.images}
    pairs = grouped(list(_pairs(chosen, sources, store)), pictures)
    return Retrieved(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.pair_id)),
        stages=tuple(stages),
        unread=dict(scan.reasons.most_common()),
    )


def _neighbours(
    vectors: EmbeddingFile, used: NDArray[np.int64], settings: RetrievalSettings, on: Progress
) -> Neighbours:
    if settings.cells_probed is not None:
        return approximate_neighbours(
            vectors.vectors(),
            settings.neighbours,
            rows=used,
            cells_probed=settings.cells_probed,
            seed=settings.seed,
        )
    return exact_neighbours(
        vectors.vectors(),
        settings.neighbours,
        rows=used,
        on_progress=lambda done, total: on("searched", done, total),
    )


def _rejection(
    first: ScannedRow,
    second: ScannedRow,
    images: Sequence[SeenImage],
    settings: RetrievalSettings,
    same_answer: SameAnswer,
) -> CoupleStage | None:
    if images[first.image].pixel_digest == images[second.image].pixel_digest:
        return CoupleStage.TWO_PICTURES
    if settings.questions is Questions.SAME and first.question != second.question:
        return CoupleStage.QUESTION
    # Either direction: what counts as the same need not be symmetric for choices.
    if same_answer(first.answer, second.answer) or same_answer(second.answer, first.answer):
        return CoupleStage.ANSWERS
    return None


def _choose(
    candidates: Sequence[Couple],
    images: Sequence[SeenImage],
    sources: Sources,
    settings: RetrievalSettings,
    lost: Counter[CoupleStage],
) -> list[Couple]:
    """In an order that only the seed and the rows' ids decide."""
    seen = SeenCouples(settings.duplicate_bits)
    used: Counter[tuple[str, str | int]] = Counter()
    chosen: list[Couple] = []
    for couple in sorted(candidates, key=lambda each: _digest(each[0], each[1], settings.seed)):
        first, second, _ = couple
        looks = images[first.image].look, images[second.image].look
        if seen.is_repeat(*looks):
            lost[CoupleStage.FRESH] += 1
            continue
        limits: dict[tuple[str, str | int], int | None] = {
            ("image", first.image): settings.per_image,
            ("image", second.image): settings.per_image,
            ("source", sources[first.source][0]): settings.per_source,
            ("source", sources[second.source][0]): settings.per_source,
            ("all", ""): None if settings.limit is None else settings.limit // 2,
        }
        if any(most is not None and used[key] >= most for key, most in limits.items()):
            lost[CoupleStage.CAPS] += 1
            continue
        used.update(limits.keys())
        seen.take(*looks)
        chosen.append(couple)
    return chosen


def _pairs(chosen: Sequence[Couple], sources: Sources, store: ImageStore) -> Iterator[ImagePair]:
    """Without their group, which all of them decide together."""
    for first, second, cosine in chosen:
        rows = [sources[each.source][1][each.number] for each in (first, second)]
        refs = [store.put(row.images[0], row_id=row.row_id) for row in rows]
        asked = [row.problem.replace(IMAGE_MARK, " ").strip() for row in rows]
        sides = [
            ImageContext(image=ref, answer=each.answer)
            for ref, each in zip(refs, (first, second), strict=True)
        ]
        named = [f"{sources[each.source][0]}/{each.row_id}" for each in (first, second)]
        for here, there in ((0, 1), (1, 0)):
            yield ImagePair(
                pair_id=f"retrieved-{_hash(named[here], named[there])[:16]}",
                question=asked[here],
                answer=sides[here].answer,
                positive=sides[here],
                negative=sides[there],
                provenance=ImageProvenance(
                    source=sources[(first, second)[here].source][0],
                    group="",
                    positive_id=rows[here].row_id,
                    negative_id=rows[there].row_id,
                    similarity=round(cosine, 4),
                    negative_question="" if first.question == second.question else asked[there],
                    miner=MINER,
                ),
            )


def _count(name: str, seen: int, kept: int) -> StageCount:
    return StageCount(name=name, unit="pairs", seen=seen, kept=kept)


def _digest(first: ScannedRow, second: ScannedRow, seed: int) -> str:
    return _hash(str(seed), *sorted((first.row_id, second.row_id)))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()
