"""The training pairs of one run, rendered and encoded when first drawn."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contextrl.pairs.errors import PromptBudgetError
from contextrl.pairs.released import ReleasedPair
from contextrl.pairs.render import STYLES, EncodedPair, PairPromptStyle, encode, orders, render
from contextrl.pairs.render import token_counter as make_token_counter
from contextrl.pairs.store import read_any
from contextrl.pairs.types import Order, Pair
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.sampler import Draw
from contextrl.verl_ext.settings import CAConfig

logger = logging.getLogger(__name__)


def pair_style(config: CAConfig) -> PairPromptStyle:
    """The configured style, with its prefill overridden if the configuration says so."""
    if config.style not in STYLES:
        raise ConfigError(f"ca.style must be one of {sorted(STYLES)}, got {config.style!r}")
    style = STYLES[config.style]
    return style if config.prefill is None else dataclasses.replace(style, prefill=config.prefill)


_FLIPPED = {
    Order.POSITIVE_FIRST: Order.POSITIVE_SECOND,
    Order.POSITIVE_SECOND: Order.POSITIVE_FIRST,
}


class PairSet:
    """Pairs that fit the budget. Which those are is found once, by rendering each in one order."""

    def __init__(
        self, config: CAConfig, pairs: Sequence[Pair | ReleasedPair], tokenizer: Any
    ) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._style = pair_style(config)
        self._count_tokens = make_token_counter(tokenizer)
        self._orders = orders([pair.pair_id for pair in pairs], config.seed)
        self._encoded: dict[tuple[int, Order], EncodedPair] = {}
        self._pairs = [pair for pair in pairs if self._fits(pair)]
        logger.info("%d/%d pairs fit %d tokens", len(self), len(pairs), config.max_prompt_tokens)
        if not self._pairs:
            raise ConfigError(
                f"expected pairs that fit ca.max_prompt_tokens={config.max_prompt_tokens} in "
                f"{config.pairs}, found none of {len(pairs)}; raise the budget or mine shorter ones"
            )

    @classmethod
    def load(cls, config: CAConfig, tokenizer: Any) -> PairSet:
        """Reads `config.pairs`. Raises `PairFileError` or `ConfigError`."""
        if config.pairs is None:
            raise ConfigError("expected ca.pairs to name a pair file, found null")
        return cls(config, read_any(Path(config.pairs)), tokenizer)

    def __len__(self) -> int:
        return len(self._pairs)

    def encoded(self, draw: Draw) -> EncodedPair:
        """The drawn pair in its own order, or flipped. A released pair has one fixed order."""
        pair = self._pairs[draw.index]
        order = self._orders[pair.pair_id]
        if draw.flipped:
            order = _FLIPPED[order]
        key = (draw.index, order)
        if key not in self._encoded:
            self._encoded[key] = self._encode(pair, order)
        return self._encoded[key]

    def _encode(self, pair: Pair | ReleasedPair, order: Order) -> EncodedPair:
        if isinstance(pair, ReleasedPair):
            return encode(pair.rendered(self._style.prefill), self._tokenizer)
        rendered = render(
            pair,
            order,
            self._style,
            max_tokens=self.config.max_prompt_tokens,
            count_tokens=self._count_tokens,
        )
        return encode(rendered, self._tokenizer)

    def _fits(self, pair: Pair | ReleasedPair) -> bool:
        if isinstance(pair, ReleasedPair):
            return self._count_tokens(pair.prompt) <= self.config.max_prompt_tokens
        try:
            self._encode(pair, Order.POSITIVE_FIRST)
        except PromptBudgetError:
            return False
        return True
