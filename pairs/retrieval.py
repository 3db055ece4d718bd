"""Image questions -> pairs: near in embedding space, the same question, different answers.

Rows are read one at a time and each distinct image file is embedded once, into a file that a later
run goes on from; so do the neighbours, which are searched exactly, one image a picture. Counts are
of rows first, then of unordered couples; each couple becomes two pairs, so that either image is
right once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contextrl.pairs.couple_choice import (
    Caps,
    Choice,
    CoupleStage,
    Questions,
    SameAnswer,
    choose,
)
from contextrl.pairs.embedders import Embedder
from contextrl.pairs.embedding_file import EmbeddingFile
from contextrl.pairs.images import ImageStore
from contextrl.pairs.near_pictures import near_pictures
from contextrl.pairs.neighbour_file import SearchFolder
from contextrl.pairs.pictures import Pictures
from contextrl.pairs.retrieved_pairs import RetrievedPairs
from contextrl.pairs.row_scan import Progress, RowScan, Sources
from contextrl.pairs.stages import StageCount

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSettings:
    least_cosine: float = 0.85
    neighbours: int = 10
    """Looked at for each picture."""
    questions: Questions = Questions.SAME
    per_source: int | None = None
    """Couples that show an image of one source."""
    per_image: int = 4
    """Couples that show one picture, in whatever encoding."""
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


@dataclass(frozen=True, slots=True)
class Retrieved:
    pairs: RetrievedPairs
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
    """Pairs and stage counts; `work` keeps embeddings and neighbours for the next run.

    Raises:
        EmbeddingError: the embedder fails, or `work` holds another embedder's vectors.
        SourceError: faiss or imagehash is not installed.
    """
    with EmbeddingFile(work, embedder.name) as vectors:
        scan = RowScan(vectors, embedder, settings.batch)
        rows = scan.rows(sources, on_progress)
        pictures = Pictures(rows, vectors.images, vectors.thumbs(), settings.seed)
        searches = SearchFolder(work, embedder.name)
        near = near_pictures(
            vectors,
            pictures,
            searches,
            settings.neighbours,
            cells_probed=settings.cells_probed,
            seed=settings.seed,
            on_progress=on_progress,
        )
        searches.keep_only_used()
        alike = near.at_least(settings.least_cosine)
        choice = choose(
            alike,
            pictures,
            settings.questions,
            Caps(
                per_source=settings.per_source,
                per_image=settings.per_image,
                couples=None if settings.limit is None else settings.limit // 2,
            ),
            same_answer,
            seed=settings.seed,
            on_progress=lambda done, total: on_progress("couples", done, total),
        )
        n_pictures = len(pictures.numbers())
        stages = [
            *scan.stages(),
            _count("two different pictures", _couples(pictures.n_images), _couples(n_pictures)),
            _count(f"among the {settings.neighbours} nearest", _couples(n_pictures), len(near)),
            _count(f"cosine at least {settings.least_cosine:g}", len(near), len(alike)),
            *_couple_stages(choice),
        ]
        for each in stages:
            logger.info("%s: kept %d/%d %s", each.name, each.kept, each.seen, each.unit)
        pairs = RetrievedPairs(
            choice.couples,
            sources,
            store,
            lambda row: pictures.name(int(pictures.copies.leader[row.image])).hex(),
        )
    return Retrieved(
        pairs=pairs,
        stages=tuple(stages),
        unread=dict(scan.reasons.most_common()),
    )


def _couple_stages(choice: Choice) -> Iterator[StageCount]:
    count = choice.seen
    for stage in CoupleStage:
        kept = count - choice.lost[stage]
        yield _count(stage, count, kept)
        count = kept


def _couples(n: int) -> int:
    return n * (n - 1) // 2


def _count(name: str, seen: int, kept: int) -> StageCount:
    return StageCount(name=name, unit="pairs", seen=seen, kept=kept)
