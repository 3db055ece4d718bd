"""Pairs as a data set that `datasets` loads: parquet shards, or the released prompts, and a card.

The card's YAML header is what the hub reads; below it stand the stage counts and the sources, so
that nobody has to ask where a pair came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.released import released_pair, write_released
from contextrl.pairs.render import PairPromptStyle, orders, render
from contextrl.pairs.store import PairManifest
from contextrl.pairs.types import TrajectoryPair

PARQUET = "train-00000.parquet"
RELEASED_FILE = "train.jsonl"
CARD = "README.md"
_BATCH = 64


def export_parquet(folder: Path, pairs: Iterable[TrajectoryPair], manifest: PairManifest) -> Path:
    """`folder` holds one parquet file with a column per field, and the card."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    path = new_file(folder, PARQUET)
    rows = (pair.model_dump(mode="json") for pair in pairs)
    writer = None
    try:
        for batch in _batches(rows):
            table = pyarrow.Table.from_pylist(batch, schema=writer.schema if writer else _schema())
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise PairFileError("expected pairs to export, found none")
    (folder / CARD).write_text(card(manifest, PARQUET), encoding="utf-8")
    return path


def import_parquet(path: Path) -> Iterator[TrajectoryPair]:
    """The pairs of an exported file, one at a time."""
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_BATCH):
        for row in batch.to_pylist():
            yield TrajectoryPair.model_validate(row)


def export_released(
    folder: Path,
    pairs: Sequence[TrajectoryPair],
    manifest: PairManifest,
    style: PairPromptStyle,
    seed: int,
) -> Path:
    """The authors' format: `prompt` and `correct_answer`, letters balanced over the set."""
    path = new_file(folder, RELEASED_FILE)
    order = orders((pair.pair_id for pair in pairs), seed)
    rows = [
        released_pair(render(pair, order[pair.pair_id], style), number)
        for number, pair in enumerate(pairs, start=1)
    ]
    write_released(path, rows)
    (folder / CARD).write_text(card(manifest, RELEASED_FILE), encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True)
class Subject:
    """What a card says of the pairs in general."""

    title: str
    about: str
    tags: tuple[str, ...]


TRAJECTORIES = Subject(
    title="Contrastive trajectory pairs",
    about=(
        "Each asks which of\ntwo debugging sessions on one function led to a patch; the text of "
        "the patch is masked in both.\nStages count ordered couples of runs as pairs."
    ),
    tags=("contrastive", "code", "agents"),
)


def card(manifest: PairManifest, file: str, subject: Subject = TRAJECTORIES) -> str:
    """Markdown with the YAML header of the hub."""
    sources = "\n".join(f"- `{each.path}` (sha256 {each.sha256[:16]})" for each in manifest.sources)
    stages = "\n".join(
        f"| {each.name} | {each.unit} | {each.seen} | {each.kept} |" for each in manifest.stages
    )
    tags = "\n".join(f"- {tag}" for tag in subject.tags)
    warning = (
        "\n**Mined across base commits: to look at, not to train on.**\n"
        if "any-commit" in manifest.miner
        else ""
    )
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {file}
tags:
{tags}
---

# {subject.title}

{manifest.n_pairs} pairs, made by `{manifest.miner}` with seed {manifest.seed}. {subject.about}
{warning}
## Stages

| stage | of | seen | kept |
|---|---|---|---|
{stages}

## Sources

{sources or "- not recorded"}

Everything stands under the licence of its source.
"""


def new_file(folder: Path, name: str) -> Path:
    """Raises `PairFileError` when it exists."""
    path = folder / name
    if path.exists():
        raise PairFileError(f"expected no file {path}, found one; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return path


def _batches(rows: Iterator[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _schema() -> object:
    """Stated, so that an empty list in the first rows does not decide a column's type."""
    import pyarrow

    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    message = pyarrow.struct([("role", text), ("content", text)])
    context = pyarrow.struct(
        [
            ("kind", text),
            ("task_id", text),
            ("trajectory_id", text),
            ("question", text),
            ("messages", pyarrow.list_(message)),
            ("decisive", texts),
        ]
    )
    provenance = pyarrow.struct(
        [
            ("repo", text),
            ("base_commit", text),
            ("file", text),
            ("function", text),
            ("function_from", text),
            ("answer_from", text),
            ("issue_similarity", pyarrow.float64()),
            ("other_commit", text),
            ("miner", text),
        ]
    )
    return pyarrow.schema(
        [
            ("schema_version", pyarrow.int64()),
            ("pair_id", text),
            ("question", text),
            ("answer", text),
            ("positive", context),
            ("negative", context),
            ("provenance", provenance),
        ]
    )
