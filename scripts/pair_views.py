"""Pairs, a probe's margins and a reviewer's labels, joined into what a viewer shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from contextrl.agents.viewer.labels import read_labels
from contextrl.agents.viewer.pairs import Cell, PairView, align
from contextrl.pairs.normal import line_forms, normal
from contextrl.pairs.probe import ProbeReport
from contextrl.pairs.store import PAIRS, read_trajectory_pairs
from contextrl.pairs.types import TrajectoryContext, TrajectoryPair
from contextrl.scripts.console import ScriptError

LABELS = "labels.jsonl"


def read_pair_views(
    path: Path, probe: Path | None = None, *, limit: int | None = None
) -> list[PairView]:
    """Raises `PairFileError`, or `ScriptError` for a file of margins that is none."""
    folder = path.parent if path.name == PAIRS else path
    margins = read_margins(probe) if probe else {}
    labels = read_labels(folder / LABELS)
    return [
        pair_view(pair, margins.get(pair.pair_id, {})).model_copy(
            update={"label": labels.get(pair.pair_id)}
        )
        for pair in read_trajectory_pairs(folder)[:limit]
    ]


def pair_view(pair: TrajectoryPair, margins: Mapping[str, float]) -> PairView:
    origin = pair.provenance
    return PairView(
        pair_id=pair.pair_id,
        question=pair.question,
        answer=pair.answer,
        where=" ".join(filter(None, (origin.repo, origin.file, origin.function))),
        positive_id=pair.positive.trajectory_id,
        negative_id=pair.negative.trajectory_id,
        rows=align(tuple(_cells(pair.positive)), tuple(_cells(pair.negative))),
        margins=dict(margins),
    )


def _cells(context: TrajectoryContext) -> Iterator[Cell]:
    wanted = set(map(normal, context.decisive)) - {""}
    for message in context.messages:
        lines = message.content.split("\n") if message.role == "user" else []
        decisive = tuple(line for line in lines if wanted & set(line_forms(line)))
        yield Cell(role=message.role, text=message.content, decisive=decisive)


def read_probe(file: Path) -> ProbeReport:
    """Raises `ScriptError` if the file does not hold one."""
    try:
        return ProbeReport.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise ScriptError(
            f"{file}: expected what `contextrl probe --json` prints: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def read_margins(file: Path) -> dict[str, dict[str, float]]:
    """Pair id to margin by option order."""
    found: dict[str, dict[str, float]] = {}
    for prompt in read_probe(file).prompts:
        found.setdefault(prompt.pair_id, {})[str(prompt.order)] = prompt.margin
    return found
