"""Rows of trajectory files: JSON, JSONL, either of them gzipped, parquet, or a folder of these.

A row that does not parse is yielded as its error, so that the caller counts it; only a file that
cannot be opened or is none of these raises.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from contextrl.agents.errors import ForeignFileError

MAX_ROW_BYTES = 256 * 2**20
"""Of one line: a gzip bomb ends here and not in memory."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".traj", ".traj.gz", ".parquet")
_NOT_ROWS = frozenset({"manifest.json", "summary.json", "preds.json", "config.json"})
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class RowAt:
    """A row, or why there is none, and where it stands."""

    path: Path
    number: int
    """From 0."""
    row: Any
    """Parsed; None where `error` says why not, or where the row was not wanted."""
    error: str = ""

    @property
    def name(self) -> str:
        """For rows without an id: the file's name, which is an id for one-row files."""
        return self.path.name if self.number == 0 else f"{self.path.name}:{self.number}"


def trajectory_files(path: Path) -> list[Path]:
    """The files below a folder that hold rows, sorted; a file stands for itself.

    Raises:
        ForeignFileError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ForeignFileError(f"expected a file or folder of trajectories at {path}, found none")
    found = [
        each
        for each in sorted(path.rglob("*"))
        if each.name.endswith(_SUFFIXES) and each.name not in _NOT_ROWS and each.is_file()
    ]
    if not found:
        raise ForeignFileError(f"expected {', '.join(_SUFFIXES)} below {path}, found none")
    return found


def rows(path: Path, wanted: Collection[int] | None = None) -> Iterator[RowAt]:
    """Every row of one file in order, or only those whose numbers are `wanted`.

    Raises:
        ForeignFileError: the file cannot be read as what its name says.
    """
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path, wanted)
        else:
            yield from _json(path, wanted)
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise ForeignFileError(f"{path} cannot be read: {error}") from error


def _json(path: Path, wanted: Collection[int] | None) -> Iterator[RowAt]:
    with _opened(path) as stream:
        first = _line(stream, path)
        if not first:
            return
        if first.lstrip().startswith(b"[") or not _is_row(first):
            yield from _document(path, first + stream.read(MAX_ROW_BYTES), wanted)
            return
        number, line, left = 0, first, set(wanted) if wanted is not None else None
        while line:
            if line.strip():
                if left is None or number in left:
                    yield _parsed(path, number, line)
                    if left is not None:
                        left.discard(number)
                        if not left:
                            return
                number += 1
            line = _line(stream, path)


def _document(path: Path, body: bytes, wanted: Collection[int] | None) -> Iterator[RowAt]:
    """A file that is one JSON value: a list of rows, or one row over many lines."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        yield RowAt(path, 0, None, f"not JSON: {str(error)[:120]}")
        return
    for number, row in enumerate(value if isinstance(value, list) else [value]):
        if wanted is None or number in wanted:
            yield RowAt(path, number, row)


def _parquet(path: Path, wanted: Collection[int] | None) -> Iterator[RowAt]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if wanted is None or any(start <= each < stop for each in wanted):
                number = start
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                    for row in batch.to_pylist():
                        if wanted is None or number in wanted:
                            yield RowAt(path, number, row)
                        number += 1
            start = stop
    except pyarrow.ArrowException as error:
        raise ForeignFileError(f"{path} is not a parquet file: {error}") from error


def _is_row(line: bytes) -> bool:
    """Whole rows on one line: JSONL. A broken first line of JSONL counts as one too."""
    try:
        json.loads(line)
    except ValueError:
        return line.rstrip().endswith(b"}") and line.startswith(b"{")
    return True


def _parsed(path: Path, number: int, line: bytes) -> RowAt:
    try:
        return RowAt(path, number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return RowAt(path, number, None, f"not JSON: {str(error)[:120]}")


def _line(stream: BinaryIO, path: Path) -> bytes:
    line = stream.readline(MAX_ROW_BYTES)
    if len(line) >= MAX_ROW_BYTES:
        raise ForeignFileError(f"{path}: expected rows below {MAX_ROW_BYTES} bytes, found a longer")
    return line


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))
