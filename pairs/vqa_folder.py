"""Image questions from a JSONL file beside its images: `images` holds paths below its folder."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.images import MAX_FILE_BYTES
from contextrl.pairs.store import named
from contextrl.pairs.vqa import VQARow

MAX_LINE_BYTES = 4 << 20
"""Of text; images are named, not held, by a line."""
MAX_IMAGES = 16
"""Of one row."""
MAX_ROW_BYTES = 2 * MAX_FILE_BYTES
"""Of the image files of one row together."""
_SHOWN = 60


class FolderRows(Sequence[VQARow]):
    """Rows by number; lines stay in the file, images are read when their row is asked for."""

    def __init__(self, path: Path) -> None:
        """`path` is the file, or a folder with one `*.jsonl` in it. Raises `PairFileError`."""
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if len(found) != 1 or not found[0].is_file():
            raise PairFileError(
                f"expected one .jsonl file of image questions at {path}, found {len(found)}"
            )
        self.path = found[0]
        self._root = self.path.parent.resolve()
        with named(self.path), self.path.open("rb") as stream:
            self._starts = [0]
            for line in stream:
                self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.row(number) for number in range(*index.indices(len(self)))]
        return self.row(range(len(self))[index])

    def row(self, number: int) -> VQARow:
        """Raises `PairFileError` naming the line: not a row, or an image outside of the folder."""
        where = f"{self.path.name}:{number + 1}"
        length = self._starts[number + 1] - self._starts[number]
        if length > MAX_LINE_BYTES:
            raise PairFileError(
                f"{where}: expected a line of at most {MAX_LINE_BYTES >> 20} MiB that names its "
                "images, found a longer one; store images as files"
            )
        with named(self.path), self.path.open("rb") as stream:
            stream.seek(self._starts[number])
            line = stream.read(length)
        try:
            row = json.loads(line)
            images, problem, answer = row["images"], row["problem"], row["answer"]
            if not isinstance(images, list) or not isinstance(problem, str):
                raise TypeError("images is a list of paths, problem a text")
            answer = "" if answer is None else str(answer)
            row_id, source = str(row.get("row_id") or where), str(row.get("source") or "")
            for text in (problem, answer, row_id, source):
                text.encode()  # JSON may hold half of a surrogate pair, which no file can
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise PairFileError(
                f"{where}: expected an object with images, problem and answer: {error}"
            ) from error
        return VQARow(
            row_id=row_id,
            problem=problem,
            images=self._files(where, images),
            answer=answer,
            source=source,
        )

    def _files(self, where: str, names: list[object]) -> tuple[bytes, ...]:
        """Each file is read once, and only when all of them together are of a sane size."""
        if len(names) > MAX_IMAGES:
            raise PairFileError(
                f"{where}: expected at most {MAX_IMAGES} images, found {len(names)}; drop the row"
            )
        paths = [self._path(where, name) for name in names]
        sizes = {path: path.stat().st_size for path in paths}
        if sum(sizes.values()) > MAX_ROW_BYTES or max(sizes.values(), default=0) > MAX_FILE_BYTES:
            raise PairFileError(
                f"{where}: expected at most {MAX_FILE_BYTES >> 20} MiB an image and "
                f"{MAX_ROW_BYTES >> 20} in all, found {sum(sizes.values()) >> 20}"
            )
        files = {}
        for path in sizes:
            with named(path):
                files[path] = path.read_bytes()
        return tuple(files[path] for path in paths)

    def _path(self, where: str, name: object) -> Path:
        path = None
        # Longer than a name may be, with a NUL in it, or a link to itself.
        with suppress(OSError, ValueError, RuntimeError):
            found = (self._root / name).resolve() if isinstance(name, str) else None
            if found is not None and found.is_relative_to(self._root) and found.is_file():
                path = found
        if path is None:
            shown = ascii(name)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
            raise PairFileError(
                f"{where}: expected the path of an image below {self._root}, found {shown}"
            )
        return path


class JoinedRows(Sequence[VQARow]):
    """The rows of several shards, one after another."""

    def __init__(self, shards: Sequence[Sequence[VQARow]]) -> None:
        self._shards = shards
        self._ends = list(accumulate(map(len, shards)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        shard = bisect_right(self._ends, number)
        return self._shards[shard][number - (self._ends[shard - 1] if shard else 0)]
