"""The pair probe on the policy under training: same prompts, same report as `contextrl probe`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from contextrl.pairs.budget import CountTokens
from contextrl.pairs.errors import ImageError, PromptBudgetError
from contextrl.pairs.probe import PairScorer, ProbeReport, probe_rendered
from contextrl.pairs.render import EncodedPair
from contextrl.pairs.render import token_counter as make_token_counter
from contextrl.pairs.types import Order, RenderedPair
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_source import FixedPair, PairSource, PairStyles, pair_styles
from contextrl.verl_ext.settings import CAConfig

logger = logging.getLogger(__name__)


class WorkerGroupScorer:
    """`PairScorer` on the trainer's ranks: the weights that were just trained, no second copy."""

    def __init__(self, worker_group: Any, micro_batch_size: int) -> None:
        self._worker_group = worker_group
        self._micro_batch_size = micro_batch_size

    def margins(self, pairs: Sequence[EncodedPair]) -> list[float]:
        of_ranks = self._worker_group.ca_margins(list(pairs), self._micro_batch_size)
        return list(of_ranks[0])


def probe_held_out(config: CAConfig, tokenizer: Any, scorer: PairScorer) -> ProbeReport:
    """Both orders of every pair of `config.held_out`; released pairs in their one order."""
    if config.held_out is None:
        raise ConfigError("expected ca.held_out to name a pair file, found null")
    return probe_source(
        PairSource.open(config.held_out),
        scorer,
        tokenizer,
        pair_styles(config.style, config.prefill),
        max_tokens=config.max_prompt_tokens,
    )


def probe_source(
    source: PairSource,
    scorer: PairScorer,
    tokenizer: Any,
    styles: PairStyles,
    *,
    max_tokens: int | None = None,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """Trajectories or images, our pairs in both orders, released ones in their own.

    Raises `PairsError` or `ImageTokensError` naming the pair that a model cannot take.
    """
    count = make_token_counter(tokenizer) if max_tokens is not None else None
    rendered, left_out = rendered_prompts(
        source, styles, max_tokens=max_tokens, count_tokens=count, limit=limit
    )
    return probe_rendered(
        rendered,
        scorer,
        tokenizer,
        style_name=style_name(source, styles),
        max_tokens=max_tokens,
        over_budget=left_out,
        on_progress=on_progress,
    )


def rendered_prompts(
    source: PairSource,
    styles: PairStyles,
    *,
    max_tokens: int | None,
    count_tokens: CountTokens | None,
    limit: int | None,
) -> tuple[list[RenderedPair], int]:
    """Every prompt to ask, and the number of pairs left out: too long, or an image is missing."""
    rendered: list[RenderedPair] = []
    left_out = 0
    for pair in source[:limit]:
        orders = [Order.POSITIVE_FIRST] if isinstance(pair, FixedPair) else list(Order)
        try:
            rendered += [
                source.render(pair, order, styles, max_tokens=max_tokens, count_tokens=count_tokens)
                for order in orders
            ]
        except (PromptBudgetError, ImageError) as error:
            left_out += 1
            logger.warning("left out: %s", error)
    return rendered, left_out


def style_name(source: PairSource, styles: PairStyles) -> str:
    """As reports name it: the release's rows bring words of their own."""
    fixed = bool(len(source)) and isinstance(source[0], FixedPair)
    return "released-file" if fixed else styles.trajectories.name
