"""Where rows of trajectories lie, and how one of them is fetched again without the others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from contextrl.agents.errors import ForeignRowError
from contextrl.agents.formats.files import RowAt, rows


class Place(NamedTuple):
    """Of a row in its source: bytes of a file of lines, else its number and 0."""

    start: int
    length: int


class Source(Protocol):
    path: Path

    def new(self) -> Iterator[tuple[Place, object]]:
        """Rows that came since the last call: bytes, parsed JSON, or an error in its place."""
        ...

    def content(self, place: Place) -> object:
        """The parsed row. Raises `ValueError` or an `AgentsError`."""
        ...


class LineSource:
    """A file of one JSON object per line, which may not exist yet and may grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def new(self) -> Iterator[tuple[Place, bytes]]:
        """A torn last line waits until it is whole. A file that shrank has nothing new."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place = Place(self._position, len(line))
                self._position += len(line)
                if line.strip():
                    yield place, line

    def content(self, place: Place) -> object:
        with self.path.open("rb") as file:
            file.seek(place.start)
            return json.loads(file.read(place.length))


class WholeSource:
    """A compressed, columnar or pretty-printed file: read once, and again up to a wanted row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: Iterator[tuple[Place, object]] | None = None
        self._ahead: Iterator[RowAt] = iter(())
        self._next = 0

    def new(self) -> Iterator[tuple[Place, object]]:
        if self._rows is None:
            self._rows = self._all()
        return self._rows

    def content(self, place: Place) -> object:
        """Rows asked for in order are read in one pass; one further back costs a new pass."""
        if place.start < self._next or not self._next:
            self._ahead, self._next = rows(self.path), 0
        for row in self._ahead:
            self._next = row.number + 1
            if row.number == place.start:
                if row.error:
                    raise ForeignRowError(row.error)
                return row.row
        raise ForeignRowError(f"{self.path} has no row {place.start + 1} any more")

    def _all(self) -> Iterator[tuple[Place, object]]:
        for row in rows(self.path):
            yield Place(row.number, 0), ForeignRowError(row.error) if row.error else row.row
