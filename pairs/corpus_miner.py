"""`mine_corpus`: public trajectories in, checked pairs and every stage's count out; resumable.

The folder `work` holds the index of each part (kept between runs while the part and the options are
the same) and one scratch data base. Nothing else depends on it: delete it at will.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contextrl.pairs.caps import Candidate, Caps, Function, within
from contextrl.pairs.corpus import draw, load
from contextrl.pairs.errors import SourceError
from contextrl.pairs.evidence import PairStage
from contextrl.pairs.index import IndexOptions, index_parts
from contextrl.pairs.related import RelatedBounds
from contextrl.pairs.sources import SourceReport, parts_of
from contextrl.pairs.stages import StageCount
from contextrl.pairs.twins import CHECKED, check, read_texts
from contextrl.pairs.types import TrajectoryPair

MINER = "cascade/3"
MINER_ANY_COMMIT = "cascade/3+any-commit"

Progress = Callable[[str, int, int], None]
"""(what, done, in all; 0 when not known)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MineSettings:
    caps: Caps = field(default_factory=lambda: Caps(limit=1000))
    bounds: RelatedBounds | None = field(default_factory=RelatedBounds)
    """None: issues are not compared, and only equal fixes count as one bug."""
    seed: int = 0
    any_commit: bool = False
    """Couple runs of different base commits too: to look at, never to train on."""
    draw_factor: int | None = 3
    """Couples drawn per couple wanted: many are rejected when their texts are read. None: all."""
    workers: int = 2

    def __post_init__(self) -> None:
        if (self.draw_factor is not None and self.draw_factor < 1) or self.workers < 1:
            raise ValueError("draw_factor and workers must be at least 1")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A checked pair without its texts, and where they stand in the scratch file."""

    pair_id: str
    trajectory_id: str
    task_id: str
    other: tuple[str, str]
    function: Function
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Half:
    trajectory_id: str
    task_id: str
    kept: _Kept


class CorpusResult:
    """The chosen pairs, read from the scratch file one at a time and sorted by id."""

    def __init__(
        self,
        scratch: Path,
        kept: Sequence[_Kept],
        stages: tuple[StageCount, ...],
        reports: tuple[SourceReport, ...],
    ) -> None:
        self._scratch = scratch
        self._kept = sorted(kept, key=lambda each: each.pair_id)
        self.stages = stages
        self.reports = reports

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[TrajectoryPair]:
        with self._scratch.open("rb") as stream:
            for each in self._kept:
                stream.seek(each.span[0])
                yield TrajectoryPair.model_validate_json(stream.read(each.span[1] - each.span[0]))


def mine_corpus(
    sources: Sequence[str],
    work: Path,
    options: IndexOptions,
    settings: MineSettings | None = None,
    *,
    on_progress: Progress = lambda what, done, total: None,
) -> CorpusResult:
    """Pairs of every source: a function of their rows, the options and the seed.

    Raises:
        ForeignFileError: a source is missing or unreadable.
        SourceError: no row of any source could be indexed.
    """
    settings = settings or MineSettings()
    parts = list(dict.fromkeys(part for source in sources for part in parts_of(source)))
    index = index_parts(
        parts,
        work / f"index-{_key(options)}",
        options,
        workers=settings.workers,
        on_progress=lambda done, total, rows: on_progress(f"parts read ({rows} rows)", done, total),
    )
    if not any(part.report.rows for part in index):
        raise SourceError(f"expected rows in {', '.join(sources)}, found none")
    database = work / "corpus.db"
    stages = load(database, index)
    caps = settings.caps
    drawing = caps.loosened(settings.draw_factor) if settings.draw_factor else None
    stages += draw(
        database, drawing, settings.bounds, seed=settings.seed, any_commit=settings.any_commit
    )
    read_texts(database, on_progress=lambda done, total: on_progress("texts", done, total))
    scratch = work / "checked.jsonl"
    miner = MINER_ANY_COMMIT if settings.any_commit else MINER
    kept, lost = _checked(database, scratch, miner, settings, on_progress)
    count = stages[-1].kept
    for stage in CHECKED:
        stages.append(StageCount(name=stage, unit="pairs", seen=count, kept=count - lost[stage]))
        count = stages[-1].kept
    chosen = within(
        caps,
        (Candidate(_first(each), _second(each), each.function) for each in kept),
        settings.seed,
        key=lambda each: each.positive.kept.pair_id,
    )
    stages.append(StageCount(name="within the caps", unit="pairs", seen=count, kept=len(chosen)))
    return CorpusResult(
        scratch,
        [each.positive.kept for each in chosen],
        tuple(stages),
        tuple(part.report for part in index),
    )


def _checked(
    database: Path, scratch: Path, miner: str, settings: MineSettings, on_progress: Progress
) -> tuple[list[_Kept], Counter[PairStage]]:
    kept: list[_Kept] = []
    lost: Counter[PairStage] = Counter()
    outcomes = check(
        database,
        miner,
        workers=settings.workers,
        on_progress=lambda done: on_progress("functions checked", done, 0),
    )
    with scratch.open("wb") as stream:
        for outcome in outcomes:
            lost += outcome.lost
            for pair in outcome.pairs:
                start = stream.tell()
                stream.write(pair.model_dump_json().encode() + b"\n")
                kept.append(_without_text(pair, (start, stream.tell())))
    return kept, lost


def _without_text(pair: TrajectoryPair, span: tuple[int, int]) -> _Kept:
    where = pair.provenance
    return _Kept(
        pair.pair_id,
        pair.positive.trajectory_id,
        pair.positive.task_id,
        (pair.negative.trajectory_id, pair.negative.task_id),
        (where.repo, where.base_commit, where.file, where.function),
        span,
    )


def _first(kept: _Kept) -> _Half:
    return _Half(kept.trajectory_id, kept.task_id, kept)


def _second(kept: _Kept) -> _Half:
    return _Half(*kept.other, kept)


def _key(options: IndexOptions) -> str:
    """Names the options, so that an index made under others is not taken for this one's."""
    benchmark = options.benchmark
    reader = options.read_source
    said = [
        sorted(each.model_dump_json() for each in options.instances.values()),
        options.known_only,
        sorted(benchmark.repositories | benchmark.instances) if benchmark else None,
        str(getattr(reader, "root", reader)) if reader else None,
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]
