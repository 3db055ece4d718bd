"""What a person decides about pairs that the judge was not sure of; every answer is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.images import ImageStore
from contextrl.pairs.judge import Judgement
from contextrl.pairs.store import read_manifest, read_pairs, write_pairs
from contextrl.pairs.types import ImagePair, Pair

RecordT = TypeVar("RecordT", bound=Record)


class Decision(Record):
    pair_id: str
    valid: bool


def open_reviews(reviews: Path, decisions: Path) -> list[Judgement]:
    """UNCERTAIN pairs without a decision. Raises `PairFileError`."""
    if not reviews.is_file():
        raise PairFileError(f"expected {reviews}, found none; run `contextrl mine judge` first")
    decided = {each.pair_id for each in read_decisions(decisions)}
    items = [_read(Judgement, line, reviews) for line in _lines(reviews)]
    return [item for item in items if item.pair_id not in decided]


def read_decisions(path: Path) -> list[Decision]:
    return [_read(Decision, line, path) for line in _lines(path)] if path.is_file() else []


def decide(path: Path, item: Judgement, *, valid: bool) -> None:
    """Appended at once: an interrupted walk loses nothing."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(Decision(pair_id=item.pair_id, valid=valid).model_dump_json() + "\n")


def add_reviewed(folder: Path, decisions: Path, pairs: Mapping[str, Pair]) -> int:
    """The folder's pairs, with those a person found valid; returns how many came in."""
    manifest, kept = read_manifest(folder), read_pairs(folder)
    there = {pair.pair_id for pair in kept}
    valid = {each.pair_id for each in read_decisions(decisions) if each.valid}
    added = [pairs[each] for each in sorted(valid - there) if each in pairs]
    if added:
        write_pairs(
            folder,
            [*kept, *added],
            miner=manifest.miner,
            seed=manifest.seed,
            stages=manifest.stages,
            sources=manifest.sources,
            split=manifest.split,
            unasked=manifest.unasked,
            spent=manifest.spent,
            overwrite=True,
        )
    return len(added)


def show(pair: Pair, item: Judgement, folder: Path) -> str:
    """Enough of a pair to decide: the patch, both issues, the lines that decide, the reason.

    Or the question, both answers, and where in `folder` the two images are to be looked at.
    """
    if isinstance(pair, ImagePair):
        lines = [f"{pair.pair_id}  {pair.provenance.source}", f"judge: {item.reason}"]
        lines.append(f"question: {pair.question}")
        for side, image in (("true", pair.positive), ("not", pair.negative)):
            lines.append(f"{pair.answer!r} is {side} of {ImageStore(folder).path(image.image)}")
        return "\n".join(lines)
    where = pair.provenance
    lines = [
        f"{pair.pair_id}  {where.repo}  {where.file}  {where.function}",
        f"judge: {item.reason}",
        "--- patch",
        pair.answer.rstrip("\n"),
    ]
    for name, context in (("supporting", pair.positive), ("confounding", pair.negative)):
        lines += [
            f"--- {name} run, {context.task_id}: {len(context.messages)} messages",
            " ".join(context.question.split())[:500],
            "decisive lines:",
            *(f"    {line}" for line in context.decisive[:12]),
        ]
    return "\n".join(lines)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read(kind: type[RecordT], line: str, path: Path) -> RecordT:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise PairFileError(f"{path}: expected {kind.__name__} records, found another") from error
