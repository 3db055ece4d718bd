"""Which pairs a model can take, found before a training: in the middle of one it is too late."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from contextrl.pairs.encode import prompt_ids
from contextrl.pairs.errors import PairsError, PromptBudgetError
from contextrl.pairs.images import open_image
from contextrl.pairs.render import token_counter
from contextrl.pairs.types import Order, RenderedPair
from contextrl.verl_ext.errors import ImageTokensError
from contextrl.verl_ext.pair_source import PairSource, PairStyles

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeenPair:
    number: int
    """In its source."""
    pair_id: str
    """Empty where not even the row could be read."""
    reason: str
    """Why the model cannot take it; empty if it can."""


def look_through(
    source: PairSource, tokenizer: Any, styles: PairStyles, *, max_tokens: int
) -> Iterator[SeenPair]:
    """Every pair, rendered in one order and checked as it will be encoded, features aside.

    Those that cannot be taken are logged by their ids, so the caller need not.
    """
    count_tokens = token_counter(tokenizer)
    for number in range(len(source)):
        pair_id, reason = "", ""
        try:
            pair = source[number]
            pair_id = pair.pair_id
            rendered = source.render(
                pair,
                Order.POSITIVE_FIRST,
                styles,
                max_tokens=max_tokens,
                count_tokens=count_tokens,
            )
            n_tokens = _n_tokens(rendered, tokenizer)
            if n_tokens > max_tokens:
                raise PromptBudgetError(
                    f"pair {pair_id}: expected at most {max_tokens} tokens, found {n_tokens}"
                )
        except PromptBudgetError as error:
            reason = str(error)
            logger.info("left out: %s", reason)  # many, where the budget is small
        except (PairsError, ImageTokensError) as error:
            reason = str(error)
            logger.warning("left out: %s", reason)
        yield SeenPair(number, pair_id, reason)


def _n_tokens(rendered: RenderedPair, tokenizer: Any) -> int:
    """Raises `PairsError` or `ImageTokensError` as encoding it would."""
    row_id = rendered.pair_id
    token_ids = prompt_ids(
        rendered.prompt,
        tokenizer,
        row_id=row_id,
        prefill=rendered.prefill,
        n_images=len(rendered.images),
    )
    sizes = [open_image(file, row_id=row_id).size for file in rendered.images]
    # One placeholder token of each image is there already.
    return len(token_ids) + sum(tokenizer.n_tokens(size, row_id=row_id) - 1 for size in sizes)
