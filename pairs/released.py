"""The authors' released pairs: JSONL with `prompt` (both options in it) and `correct_answer`.

Lines are kept as they were read, so that reading and writing a file gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from contextrl.envs.types import Record
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.types import Letter, Order, RenderedPair

KEY_PROMPT = "prompt"
KEY_ANSWER = "correct_answer"


class ReleasedPair(Record):
    """One released row. Its option order is fixed: the contexts cannot be taken apart again."""

    prompt: str
    correct: Letter
    line: bytes
    """The row as it stands in its file, line end included."""
    number: int
    """Line number, from 1."""

    @property
    def pair_id(self) -> str:
        digest = hashlib.sha256(self.prompt.encode("utf-8", "replace")).hexdigest()[:12]
        return f"released-{self.number}-{digest}"

    def rendered(self, prefill: str = "") -> RenderedPair:
        first = self.correct == "A"
        return RenderedPair(
            pair_id=self.pair_id,
            order=Order.POSITIVE_FIRST if first else Order.POSITIVE_SECOND,
            prompt=self.prompt,
            prefill=prefill,
            correct=self.correct,
            spaced_letters=True,
        )


def released_pair(rendered: RenderedPair, number: int) -> ReleasedPair:
    """Our prompt as a row of the released format."""
    row = {KEY_PROMPT: rendered.prompt, KEY_ANSWER: rendered.correct}
    line = json.dumps(row, ensure_ascii=False) + "\n"
    return ReleasedPair(
        prompt=rendered.prompt,
        correct=rendered.correct,
        line=line.encode("utf-8", "backslashreplace"),
        number=number,
    )


def read_released(path: Path) -> tuple[ReleasedPair, ...]:
    """Every row of the file, blank lines left out.

    Raises:
        PairFileError: names the line and what is wrong with it.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise PairFileError(f"{path}: {error.strerror or error}") from error
    lines = body.split(b"\n")
    ended = [line + b"\n" for line in lines[:-1]] + lines[-1:]
    pairs = tuple(
        _row(path, number, line) for number, line in enumerate(ended, start=1) if line.strip()
    )
    if not pairs:
        raise PairFileError(f"{path}: expected at least one pair, found an empty file")
    return pairs


def write_released(path: Path, pairs: Iterable[ReleasedPair], *, overwrite: bool = False) -> None:
    """The rows' own bytes, a line end added only where one is missing before another row.

    Raises:
        PairFileError: the file exists and `overwrite` is False.
    """
    if path.exists() and not overwrite:
        raise PairFileError(f"expected no file {path}, found one; pass another path")
    lines = [pair.line for pair in pairs]
    body = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines[:-1])
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(body + b"".join(lines[-1:]))
        temporary.replace(path)
    except OSError as error:
        raise PairFileError(f"{path}: {error.strerror or error}") from error


def _row(path: Path, number: int, line: bytes) -> ReleasedPair:
    where = f"{path}:{number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PairFileError(f"{where}: expected one JSON object per line: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get(KEY_PROMPT), str):
        raise PairFileError(
            f"{where}: expected an object with a text under {KEY_PROMPT!r}; "
            "is this a file of released pairs?"
        )
    answer = row.get(KEY_ANSWER)
    if answer not in ("A", "B"):
        raise PairFileError(
            f"{where}: expected 'A' or 'B' under {KEY_ANSWER!r}, found {str(answer)[:40]!r}; "
            "fix or remove the row"
        )
    return ReleasedPair(prompt=row[KEY_PROMPT], correct=answer, line=line, number=number)
