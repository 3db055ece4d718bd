"""A reviewer's labels of pairs: JSONL, one line per decision, the last one of a pair holds."""

from __future__ import annotations

import datetime
from pathlib import Path

from pydantic import ValidationError

from contextrl.agents.errors import RunStoreError
from contextrl.agents.viewer.pairs import Label
from contextrl.envs.types import Record


class LabelLine(Record):
    schema_version: int = 1
    pair_id: str
    label: Label
    at: str
    """ISO 8601, UTC."""


def append_label(file: Path, pair_id: str, label: Label) -> None:
    """Raises `RunStoreError` if it cannot be written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = LabelLine(pair_id=pair_id, label=label, at=now).model_dump_json() + "\n"
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise RunStoreError(f"{file}: the label was not stored: {error}") from error


def read_labels(file: Path) -> dict[str, Label]:
    """By pair; empty if nobody labelled anything. Raises `RunStoreError` at a bad line."""
    labels: dict[str, Label] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return labels
    except (OSError, UnicodeDecodeError) as error:
        raise RunStoreError(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            read = LabelLine.model_validate_json(line)
        except ValidationError as error:
            raise RunStoreError(f"{file}:{number}: expected a label: {error}") from error
        labels[read.pair_id] = read.label
    return labels
