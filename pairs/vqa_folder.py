"""Image questions from a JSONL file beside its images: `images` holds paths below its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.images import MAX_FILE_BYTES
from contextrl.pairs.store import named
from contextrl.pairs.vqa import VQARow


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
        with named(self.path), self.path.open("rb") as stream:
            stream.seek(self._starts[number])
            line = stream.read(self._starts[number + 1] - self._starts[number])
        try:
            row = json.loads(line)
            images, problem, answer = row["images"], row["problem"], row["answer"]
            if not isinstance(images, list) or not isinstance(problem, str):
                raise TypeError("images is a list of paths, problem a text")
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise PairFileError(
                f"{where}: expected an object with images, problem and answer: {error}"
            ) from error
        return VQARow(
            row_id=str(row.get("row_id") or where),
            problem=problem,
            images=tuple(self._file(where, each) for each in images),
            answer="" if answer is None else str(answer),
        )

    def _file(self, where: str, name: object) -> bytes:
        path = (self._root / str(name)).resolve()
        if not path.is_relative_to(self._root) or not path.is_file():
            raise PairFileError(f"{where}: expected an image below {self._root}, found {name!r}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PairFileError(f"{where}: expected at most {MAX_FILE_BYTES >> 20} MiB in {name!r}")
        with named(path):
            return path.read_bytes()
