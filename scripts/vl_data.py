"""Stage `data`: which rows are asked, as veRL's parquet, and that a model can take them at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextrl.pairs.errors import PairsError
from contextrl.pairs.hub import settled
from contextrl.pairs.vqa import VQARow
from contextrl.verl_ext.errors import ConfigError, ImageTokensError
from contextrl.verl_ext.settings_vl import VLConfig
from contextrl.verl_ext.vqa import question_prompt
from contextrl.verl_ext.vqa_rows import VQARows

logger = logging.getLogger(__name__)

TRAIN = "train"
HELD_OUT = "heldout_rows"
LEAST_ROWS = 8
CHECKED = 1000
"""Rows of a split that are prepared before a training starts; of the others the agent loop leaves
out what does not fit, by its id, when it comes to it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows of one source, by number."""

    source: str
    numbers: Sequence[int]


def choose_rows(
    train: str, validate: Mapping[str, str], limit: int | None
) -> tuple[Asked, dict[str, Asked]]:
    """Questions of the files; pairs among their rows are the CA loss's and are left out.

    Without `validate` a share of `train` is held out, chosen by the rows' numbers alone. Raises
    `PairFileError`, `SourceError` or `ConfigError`.
    """
    source = settled(train)
    numbers = VQARows.open(source).kinds()[0]
    if validate:
        held_out = {name: settled(file) for name, file in validate.items()}
        return Asked(source, numbers), {
            name: Asked(file, VQARows.open(file).kinds()[0][:limit])
            for name, file in held_out.items()
        }
    ranked = sorted(numbers, key=lambda number: hashlib.sha256(f"{number}".encode()).digest())
    n_held_out = min(limit or 256, len(ranked) // 4)
    if len(ranked) < LEAST_ROWS:
        raise ConfigError(
            f"expected at least {LEAST_ROWS} questions in {train}, found {len(ranked)}"
        )
    return Asked(source, sorted(ranked[n_held_out:])), {
        HELD_OUT: Asked(source, sorted(ranked[:n_held_out]))
    }


def write_rows(
    path: Path,
    asked: Mapping[str, Asked],
    *,
    phase: str,
    tokenizer: Any,
    vl: VLConfig,
    max_prompt_tokens: int,
) -> int:
    """veRL's parquet: what is asked, by number; how many rows were left out.

    Of the first `CHECKED` rows of a split those whose images or marks do not fit, or whose prompt
    is too long, are named and left out.
    """
    import pandas as pd

    rows, left_out = [], 0
    for split, of_split in asked.items():
        table = VQARows.open(of_split.source)
        for place, number in enumerate(of_split.numbers):
            try:
                if place < CHECKED:
                    _check(table.row(number), tokenizer, vl, max_prompt_tokens)
            except (PairsError, ImageTokensError, ConfigError) as error:
                left_out += 1
                logger.warning("left out: %s", error)
                continue
            row = table.words(number)
            rows.append(
                {
                    "data_source": split,
                    "prompt": [{"role": "user", "content": row.problem}],
                    "reward_model": {"style": "rule", "ground_truth": row.answer},
                    "extra_info": {
                        "index": number,
                        "source": of_split.source,
                        "row_id": row.row_id,
                        "phase": phase,
                    },
                }
            )
    if not rows:
        raise ConfigError(f"expected rows that the model can take for {path.name}, found none")
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)
    return left_out


def _check(row: VQARow, tokenizer: Any, vl: VLConfig, max_prompt_tokens: int) -> None:
    n_tokens = len(question_prompt(row, tokenizer, vl).token_ids)
    if n_tokens > max_prompt_tokens:
        raise ConfigError(
            f"{row.row_id}: expected a prompt of at most {max_prompt_tokens} tokens, found "
            f"{n_tokens}; raise data.max_prompt_length"
        )
