"""Pairs of trajectories from tables: what `contextrl mine export` writes, and the released columns.

A table is whatever `datasets` reads, a parquet file or a data set of the hub.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.released import KEY_ANSWER, KEY_PROMPT, ReleasedPair
from contextrl.pairs.types import SCHEMA_VERSION, TrajectoryPair
from contextrl.verl_ext.vqa_rows import ANSWER, IMAGES, PROBLEM

RELEASED = frozenset({KEY_PROMPT, KEY_ANSWER})
OWN = frozenset({"pair_id", "question", "answer", "positive", "negative", "provenance"})


def text_pairs(source: str, table: Any) -> list[ReleasedPair] | list[TrajectoryPair]:
    """All pairs of the table, in order.

    Raises:
        PairFileError: names the row that is no pair, or the columns that the table should have.
    """
    columns = set(table.column_names)
    if columns >= RELEASED:
        return [_released(source, number, row) for number, row in enumerate(table, start=1)]
    if columns >= OWN:
        return [_own(source, number, row) for number, row in enumerate(table, start=1)]
    raise PairFileError(
        f"{source}: expected the columns {KEY_PROMPT} and {KEY_ANSWER} of released pairs, "
        f"{IMAGES}, {PROBLEM} and {ANSWER} of image rows, or those that `contextrl mine export` "
        f"writes, found {', '.join(sorted(columns)) or 'none'}"
    )


def _released(source: str, number: int, row: dict[str, Any]) -> ReleasedPair:
    prompt, answer = row[KEY_PROMPT], row[KEY_ANSWER]
    if not isinstance(prompt, str) or answer not in ("A", "B"):
        raise PairFileError(
            f"{source}, row {number}: expected a text under {KEY_PROMPT} and A or B under "
            f"{KEY_ANSWER}, found {type(prompt).__name__} and {str(answer)[:40]!r}; fix or drop it"
        )
    line = json.dumps({KEY_PROMPT: prompt, KEY_ANSWER: answer}, ensure_ascii=False) + "\n"
    return ReleasedPair(
        prompt=prompt, correct=answer, line=line.encode("utf-8", "backslashreplace"), number=number
    )


def _own(source: str, number: int, row: dict[str, Any]) -> TrajectoryPair:
    where = f"{source}, row {number}"
    try:
        pair = TrajectoryPair.model_validate(row)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "the row"
        raise PairFileError(f"{where}: expected a pair: {field}: {problem['msg']}") from error
    if pair.schema_version != SCHEMA_VERSION:
        raise PairFileError(
            f"{where}: expected schema {SCHEMA_VERSION}, found {pair.schema_version}; export again"
        )
    return pair
