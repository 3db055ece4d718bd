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
from contextrl.pairs.hub import fetched, hub_table, on_hub
from contextrl.pairs.vqa import VQARow, is_pair

IMAGES, PROBLEM, ANSWER, ROW_ID = "images", "problem", "answer", "row_id"
SOURCE = "source"
"""Which of a mixed set's sources a row is from; a column that may be missing."""
COLUMNS = frozenset({IMAGES, PROBLEM, ANSWER})

logger = logging.getLogger(__name__)


def open_table(source: str | Path) -> Any:
    """A `datasets.Dataset`: `source` is a parquet file, or whatever `pairs.hub` names.

    Raises `PairFileError` if the file is not there or not parquet, `SourceError` for the hub.
    """
    import datasets

    datasets.disable_progress_bars()
    name = fetched(str(source))
    if on_hub(name):
        return hub_table(name)
    if not Path(name).is_file():
        raise PairFileError(f"expected a file of rows at {name}, found none")
    try:
        return datasets.Dataset.from_parquet(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0]
        raise PairFileError(f"{name}: expected a parquet file, found: {reason}") from error


class VQARows(Sequence[VQARow]):
    """Rows by number. Those that fail to read do so when they are asked for, by their id."""

    def __init__(self, source: str, table: Any) -> None:
        """Raises `PairFileError` if the table has other columns."""
        missing = [name for name in (IMAGES, PROBLEM, ANSWER) if name not in table.column_names]
        if missing:
            raise PairFileError(
                f"{source}: expected the columns {IMAGES}, {PROBLEM} and {ANSWER}, found no "
                f"{' and no '.join(missing)}; is this a file of image questions?"
            )
        self.source = source
        self._table = _with_encoded_images(source, table)
        self._words = self._table.remove_columns(IMAGES)
        self._has_ids = ROW_ID in table.column_names

    @classmethod
    def open(cls, source: str | Path) -> VQARows:
        """See `open_table`. Raises `PairFileError` or `SourceError`."""
        return cls(str(source), open_table(source))

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        return self.row(index)

    def __iter__(self) -> Iterator[VQARow]:
        return (self.row(index) for index in range(len(self)))

    def row(self, index: int) -> VQARow:
        """Raises `PairFileError` naming a row that holds no encoded images."""
        words = self.words(index)
        images = []
        for image in self._table[index][IMAGES] or []:
            if image is None or not image.get("bytes"):
                raise PairFileError(
                    f"{words.row_id}: expected images within the file, found a path or nothing; "
                    "store their bytes"
                )
            images.append(image["bytes"])
        return words.model_copy(update={"images": tuple(images)})

    def words(self, index: int) -> VQARow:
        """The row without its images, which are not read."""
        found = self._words[index]
        return VQARow(
            row_id=str(found[ROW_ID]) if self._has_ids else f"{Path(self.source).name}:{index}",
            problem=str(found[PROBLEM] or ""),
            images=(),
            answer="" if found[ANSWER] is None else str(found[ANSWER]),
            source=str(found.get(SOURCE) or ""),
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


def _with_encoded_images(source: str, table: Any) -> Any:
    """The rows of `images` as lists of undecoded files."""
    import datasets

    kind = table.features[IMAGES]
    try:
        return table.cast_column(IMAGES, datasets.List(datasets.Image(decode=False)))
    # Of `datasets`, and of Arrow below it, for a column that is none.
    except (TypeError, ValueError, NotImplementedError) as error:
        raise PairFileError(
            f"{source}: expected a list of encoded images in each row of the column {IMAGES}, "
            f"found {' '.join(str(kind).split())[:80]}; put single images into lists of one"
        ) from error
