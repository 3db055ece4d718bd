"""The pair probe on the policy under training: same prompts, same report as `contextrl probe`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from contextrl.pairs.budget import CountTokens
from contextrl.pairs.errors import ImageError, PromptBudgetError
from contextrl.pairs.probe import (
    PairScorer,
    ProbeReport,
    PromptResult,
    probe_rendered,
    summarise,
)
from contextrl.pairs.render import EncodedPair
from contextrl.pairs.render import token_counter as make_token_counter
from contextrl.pairs.types import Order, RenderedPair
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_fit import look_through
from contextrl.verl_ext.pair_source import (
    FixedPair,
    OwnPair,
    PairSource,
    PairStyles,
    pair_styles,
)
from contextrl.verl_ext.settings import CAConfig

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 32
Progress = Callable[[int, int], None]
"""(prompts done, prompts in all)."""


class WorkerGroupScorer:
    """`PairScorer` on the trainer's ranks: the weights that were just trained, no second copy."""

    def __init__(self, worker_group: Any, micro_batch_size: int) -> None:
        self._worker_group = worker_group
        self._micro_batch_size = micro_batch_size

    def margins(self, pairs: Sequence[EncodedPair]) -> list[float]:
        of_ranks = self._worker_group.ca_margins(list(pairs), self._micro_batch_size)
        return list(of_ranks[0])


class PairProbe:
    """What a run is measured on, before and after: `measured_pairs` that the model can take."""

    def __init__(self, config: CAConfig, source: PairSource, tokenizer: Any) -> None:
        """Raises `ConfigError` if the model can take none."""
        self._styles = pair_styles(config.style, config.prefill)
        self._budget = config.max_prompt_tokens
        self._tokenizer = tokenizer
        seen = list(look_through(source, tokenizer, self._styles, max_tokens=self._budget))
        numbers = [each.number for each in seen if not each.reason]
        if not numbers:
            first = f"; the first: {seen[0].reason}" if seen else ""
            raise ConfigError(
                "expected pairs in ca.held_out that the model can take and that fit "
                f"ca.max_prompt_tokens={self._budget}, found none of {len(source)}{first}"
            )
        self._source = source.only(numbers)
        self._left_out = len(source) - len(numbers)

    def __len__(self) -> int:
        return len(self._source)

    def report(self, scorer: PairScorer) -> ProbeReport:
        """Both orders of every pair; released pairs in their one order."""
        report = probe_source(
            self._source, scorer, self._tokenizer, self._styles, max_tokens=self._budget
        )
        left_out = report.over_budget + self._left_out
        return report.model_copy(update={"over_budget": left_out})


def probe_source(
    source: PairSource,
    scorer: PairScorer,
    tokenizer: Any,
    styles: PairStyles,
    *,
    max_tokens: int | None = None,
    limit: int | None = None,
    on_progress: Progress | None = None,
) -> ProbeReport:
    """Trajectories or images, our pairs in both orders, released ones in their own.

    Raises `PairsError` or `ImageTokensError` naming the pair that a model cannot take.
    """

    def ask(rendered: Sequence[RenderedPair], on_part: Progress) -> ProbeReport:
        return probe_rendered(
            rendered,
            scorer,
            tokenizer,
            style_name=style_name(source, styles),
            max_tokens=max_tokens,
            on_progress=on_part,
        )

    return probe_in_parts(
        source,
        ask,
        styles,
        max_tokens=max_tokens,
        count_tokens=make_token_counter(tokenizer) if max_tokens is not None else None,
        limit=limit,
        on_progress=on_progress,
    )


def probe_in_parts(
    source: PairSource,
    ask: Callable[[Sequence[RenderedPair], Progress], ProbeReport],
    styles: PairStyles,
    *,
    max_tokens: int | None,
    count_tokens: CountTokens | None,
    limit: int | None,
    on_progress: Progress | None,
) -> ProbeReport:
    """One report of what `ask` says, a few pairs at a time: their images never fill the memory."""
    n_pairs = len(source) if limit is None else min(limit, len(source))
    orders = 1 if _is_fixed(source) else len(Order)
    say = on_progress or (lambda done, total: None)
    prompts: list[PromptResult] = []
    left_out = 0
    for start in range(0, n_pairs, PAIRS_AT_ONCE):
        part = source[start : min(start + PAIRS_AT_ONCE, n_pairs)]
        rendered, lost = rendered_prompts(
            source, part, styles, max_tokens=max_tokens, count_tokens=count_tokens
        )

        def on_part(done: int, _: int, before: int = orders * start) -> None:
            say(before + done, orders * n_pairs)

        report = ask(rendered, on_part)
        prompts += report.prompts
        left_out += lost + report.over_budget
    return summarise(prompts, style_name=style_name(source, styles), over_budget=left_out)


def rendered_prompts(
    source: PairSource,
    pairs: Iterable[OwnPair | FixedPair],
    styles: PairStyles,
    *,
    max_tokens: int | None,
    count_tokens: CountTokens | None,
) -> tuple[list[RenderedPair], int]:
    """Their prompts, and the number of pairs left out: too long, or an image is missing."""
    rendered: list[RenderedPair] = []
    left_out = 0
    for pair in pairs:
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
    return "released-file" if _is_fixed(source) else styles.trajectories.name


def _is_fixed(source: PairSource) -> bool:
    return bool(len(source)) and isinstance(source[0], FixedPair)
