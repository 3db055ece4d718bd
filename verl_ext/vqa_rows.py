"""Released-format rows, read when asked for: a parquet file or a data set of the hub.

`datasets` keeps them in memory-mapped Arrow files, so 45,000 rows of images cost no memory. Images
stay encoded: `pairs.images` is what opens them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.vqa import VQARow, is_pair

HUB_PREFIX = "hf://"
IMAGES, PROBLEM, ANSWER, ROW_ID = "images", "problem", "answer", "row_id"
SUFFIXES = (".parquet", ".jsonl", ".json")

logger = logging.getLogger(__name__)


def is_row_file(name: str | Path) -> bool:
    """Whether `name` means rows of images rather than pairs of trajectories."""
    return str(name).startswith(HUB_PREFIX) or str(name).endswith(".parquet")


class VQARows(Sequence[VQARow]):
    """Rows by number. Those that fail to read do so when they are asked for, by their id."""

    def __init__(self, source: str, table: Any) -> None:
        missing = [name for name in (IMAGES, PROBLEM, ANSWER) if name not in table.column_names]
        if missing:
            raise PairFileError(
                f"{source}: expected the columns {IMAGES}, {PROBLEM} and {ANSWER}, found no "
                f"{' and no '.join(missing)}; is this a file of image questions?"
            )
        import datasets

        self.source = source
        self._table = table.cast_column(IMAGES, datasets.List(datasets.Image(decode=False)))
        self._has_ids = ROW_ID in table.column_names

    @classmethod
    def open(cls, source: str | Path) -> VQARows:
        """`source`: a parquet file, or `hf://owner/name` with `@split` for another than train.

        Raises `PairFileError` if it is not there or has other columns.
        """
        import datasets

        name = str(source)
        datasets.disable_progress_bars()
        try:
            if name.startswith(HUB_PREFIX):
                repository, _, split = name.removeprefix(HUB_PREFIX).partition("@")
                table = datasets.load_dataset(repository, split=split or "train")
            elif not Path(name).is_file():
                raise PairFileError(f"expected a file of rows at {name}, found none")
            else:
                table = datasets.Dataset.from_parquet(name)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).splitlines()[0]
            raise PairFileError(f"{name}: expected rows of images, found: {reason}") from error
        return cls(name, table)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        return self.row(index)

    def __iter__(self) -> Iterator[VQARow]:
        return (self.row(index) for index in range(len(self)))

    def row(self, index: int) -> VQARow:
        """Raises `PairFileError` naming a row that holds no encoded images."""
        found = self._table[index]
        row_id = str(found[ROW_ID]) if self._has_ids else f"{Path(self.source).name}:{index}"
        images = []
        for image in found[IMAGES] or []:
            if image is None or not image.get("bytes"):
                raise PairFileError(
                    f"{row_id}: expected images within the file, found a path or nothing; store "
                    "their bytes"
                )
            images.append(image["bytes"])
        return VQARow(
            row_id=row_id,
            problem=str(found[PROBLEM] or ""),
            images=tuple(images),
            answer="" if found[ANSWER] is None else str(found[ANSWER]),
        )

    def kinds(self) -> tuple[list[int], list[int]]:
        """Numbers of the questions, and of the pairs, without reading an image."""
        import pyarrow.compute as pc

        lengths = pc.list_value_length(self._table.data.column(IMAGES)).to_pylist()
        answers = self._table.data.column(ANSWER).to_pylist()
        questions: list[int] = []
        pairs: list[int] = []
        for index, (n_images, answer) in enumerate(zip(lengths, answers, strict=True)):
            kind = pairs if is_pair(n_images or 0, str(answer)) else questions
            kind.append(index)
        logger.info("%s: %d questions, %d pairs", self.source, len(questions), len(pairs))
        return questions, pairs
