"""Does a model read its context? Selection accuracy on pairs, each asked in both option orders.

The two orders of a pair are not independent, so every interval counts pairs, not prompts.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import Protocol

from contextrl.envs.types import Record
from contextrl.pairs.encode import EncodedPair, Tokenizer, encode, token_counter
from contextrl.pairs.errors import PairsError, PromptBudgetError
from contextrl.pairs.intervals import Change, Share, paired_bootstrap, wilson
from contextrl.pairs.render import PairPromptStyle, render
from contextrl.pairs.types import Letter, Order, RenderedPair, TrajectoryPair

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
DEFAULT_CHUNK = 64
"""Prompts per call of the scorer: progress is reported between calls."""


class PairScorer(Protocol):
    """A model that answers by the log-probabilities of the two letters."""

    def margins(self, pairs: Sequence[EncodedPair]) -> list[float]:
        """log p(correct letter) - log p(other letter) at the last token, one per pair."""
        ...


class PromptResult(Record):
    """One prompt of the probe."""

    pair_id: str
    order: Order
    correct: Letter
    margin: float

    @property
    def credit(self) -> float:
        """1 right, 0 wrong, 0.5 when the letters are equally likely."""
        return 0.5 if self.margin == 0 else float(self.margin > 0)

    @property
    def answers_a(self) -> float:
        return self.credit if self.correct == "A" else 1 - self.credit


class ProbeReport(Record):
    """What `contextrl probe` prints and stores."""

    schema_version: int = SCHEMA_VERSION
    style: str
    accuracy: Share
    """Over pairs: the mean of each pair's orders; a Wilson interval with one trial per pair."""
    consistent: Share
    """Pairs that are right in both orders. `n` counts only pairs asked in both."""
    share_a: float
    """Of all answers; 0.5 for a model without position bias and as many correct As as Bs."""
    accuracy_when_a: float
    """Over prompts whose correct letter is A; the gap to the next field is the position bias."""
    accuracy_when_b: float
    mean_margin: float
    """Nats, over prompts."""
    over_budget: int
    """Pairs left out because they do not fit `max_tokens` even after trimming."""
    prompts: tuple[PromptResult, ...]


def probe(
    pairs: Sequence[TrajectoryPair],
    scorer: PairScorer,
    tokenizer: Tokenizer,
    style: PairPromptStyle,
    *,
    max_tokens: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """Ask every pair in both orders. `on_progress` gets (prompts done, prompts in all).

    Raises:
        PairsError: the scorer returned something that is not a margin per prompt.
    """
    rendered: list[RenderedPair] = []
    over_budget = 0
    count = token_counter(tokenizer) if max_tokens is not None else None
    for pair in pairs:
        try:
            rendered += [
                render(pair, order, style, max_tokens=max_tokens, count_tokens=count)
                for order in Order
            ]
        except PromptBudgetError as error:
            over_budget += 1
            logger.info("left out: %s", error)
    return probe_rendered(
        rendered,
        scorer,
        tokenizer,
        style_name=style.name,
        max_tokens=max_tokens,
        over_budget=over_budget,
        on_progress=on_progress,
    )


def probe_rendered(
    rendered: Sequence[RenderedPair],
    scorer: PairScorer,
    tokenizer: Tokenizer,
    *,
    style_name: str,
    max_tokens: int | None = None,
    over_budget: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> ProbeReport:
    """The same for prompts that exist already, e.g. a released file, which fixes one order each.

    A pair with a prompt of more than `max_tokens` is left out whole and counted on top of
    `over_budget`.
    """
    results: list[PromptResult] = []
    too_long: set[str] = set()
    done = 0
    for chunk in _chunks(rendered):
        encoded = [encode(each, tokenizer) for each in chunk]
        done += len(chunk)
        if max_tokens is not None:
            fits = [len(each.token_ids) <= max_tokens for each in encoded]
            too_long |= {r.pair_id for r, fit in zip(chunk, fits, strict=True) if not fit}
            chunk = list(compress(chunk, fits))
            encoded = list(compress(encoded, fits))
        margins = scorer.margins(encoded) if encoded else []
        if len(margins) != len(chunk) or any(map(math.isnan, margins)):
            raise PairsError(
                f"expected {len(chunk)} margins from the scorer, found {len(margins)} with "
                f"{sum(map(math.isnan, margins))} of them nan; check the model's weights"
            )
        results += [
            PromptResult(pair_id=r.pair_id, order=r.order, correct=r.correct, margin=margin)
            for r, margin in zip(chunk, margins, strict=True)
        ]
        if on_progress is not None:
            on_progress(done, len(rendered))
    return summarise(
        [result for result in results if result.pair_id not in too_long],
        style_name=style_name,
        over_budget=over_budget + len(too_long),
    )


def summarise(
    results: Sequence[PromptResult], *, style_name: str, over_budget: int = 0
) -> ProbeReport:
    """The report of these prompts."""
    by_pair = _credits(results)
    both = [min(credits) for credits in by_pair.values() if len(credits) > 1]
    return ProbeReport(
        style=style_name,
        accuracy=wilson([_mean(credits) for credits in by_pair.values()]),
        consistent=wilson([float(credit == 1) for credit in both]),
        share_a=_mean([result.answers_a for result in results]),
        accuracy_when_a=_mean([r.credit for r in results if r.correct == "A"]),
        accuracy_when_b=_mean([r.credit for r in results if r.correct == "B"]),
        mean_margin=_mean([result.margin for result in results]),
        over_budget=over_budget,
        prompts=tuple(results),
    )


def accuracy_by_pair(report: ProbeReport) -> dict[str, float]:
    """The mean of each pair's orders, by its id."""
    return {pair_id: _mean(credits) for pair_id, credits in _credits(report.prompts).items()}


def accuracy_change(before: ProbeReport, after: ProbeReport, *, seed: int = 0) -> Change:
    """After minus before over the pairs that both reports hold, bootstrapped over pairs."""
    first, second = accuracy_by_pair(before), accuracy_by_pair(after)
    shared = sorted(first.keys() & second.keys())
    return paired_bootstrap([second[key] - first[key] for key in shared], seed=seed)


def _credits(results: Sequence[PromptResult]) -> dict[str, list[float]]:
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        credits[result.pair_id].append(result.credit)
    return dict(credits)


def _chunks(rendered: Sequence[RenderedPair]) -> Iterator[Sequence[RenderedPair]]:
    for start in range(0, len(rendered), DEFAULT_CHUNK):
        yield rendered[start : start + DEFAULT_CHUNK]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
