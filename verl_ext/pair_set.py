"""The training pairs of one run, rendered and encoded when first drawn."""

from __future__ import annotations

import logging
from typing import Any

from contextrl.pairs.errors import ImageError, PromptBudgetError
from contextrl.pairs.images import open_image
from contextrl.pairs.render import EncodedPair, PairPromptStyle, encode, orders
from contextrl.pairs.render import token_counter as make_token_counter
from contextrl.pairs.types import Order
from contextrl.verl_ext.errors import ConfigError, ImageTokensError
from contextrl.verl_ext.pair_source import FixedPair, OwnPair, PairSource, pair_styles
from contextrl.verl_ext.sampler import Draw
from contextrl.verl_ext.settings import CAConfig

logger = logging.getLogger(__name__)


def pair_style(config: CAConfig) -> PairPromptStyle:
    """The configured style for trajectories, with the prefill that the configuration names."""
    return pair_styles(config.style, config.prefill).trajectories


_FLIPPED = {
    Order.POSITIVE_FIRST: Order.POSITIVE_SECOND,
    Order.POSITIVE_SECOND: Order.POSITIVE_FIRST,
}


class PairSet:
    """Pairs that fit the budget. Which those are is found once, by rendering each in one order."""

    def __init__(self, config: CAConfig, pairs: PairSource, tokenizer: Any) -> None:
        self.config = config
        self._source = pairs
        self._tokenizer = tokenizer
        self._styles = pair_styles(config.style, config.prefill)
        self._count_tokens = make_token_counter(tokenizer)
        self._encoded: dict[tuple[int, Order], EncodedPair] = {}
        self._numbers: list[int] = []
        ids: list[str] = []
        for number, pair in enumerate(pairs):
            if self._fits(pair):
                self._numbers.append(number)
            ids.append(pair.pair_id)
        self._orders = orders(ids, config.seed)
        logger.info("%d/%d pairs fit %d tokens", len(self), len(pairs), config.max_prompt_tokens)
        if not self._numbers:
            raise ConfigError(
                f"expected pairs that fit ca.max_prompt_tokens={config.max_prompt_tokens} in "
                f"{config.pairs}, found none of {len(pairs)}; raise the budget or mine shorter ones"
            )

    @classmethod
    def load(cls, config: CAConfig, tokenizer: Any) -> PairSet:
        """Reads `config.pairs`. Raises `PairFileError` or `ConfigError`."""
        if config.pairs is None:
            raise ConfigError("expected ca.pairs to name a pair file, found null")
        return cls(config, PairSource.open(config.pairs), tokenizer)

    def __len__(self) -> int:
        return len(self._numbers)

    def encoded(self, draw: Draw) -> EncodedPair:
        """The drawn pair in its own order, or flipped. A released pair has one fixed order."""
        pair = self._source[self._numbers[draw.index]]
        order = self._orders[pair.pair_id]
        if draw.flipped:
            order = _FLIPPED[order]
        key = (draw.index, order)
        if key not in self._encoded:
            self._encoded[key] = self._encode(pair, order)
            # Images are megabytes: what one rollout step draws is kept, for its updates.
            if self._encoded[key].vision is not None:
                for oldest in list(self._encoded)[: -2 * self.config.pairs_per_step]:
                    del self._encoded[oldest]
        return self._encoded[key]

    def _encode(self, pair: OwnPair | FixedPair, order: Order) -> EncodedPair:
        rendered = self._source.render(
            pair,
            order,
            self._styles,
            max_tokens=self.config.max_prompt_tokens,
            count_tokens=self._count_tokens,
        )
        return encode(rendered, self._tokenizer)

    def _fits(self, pair: OwnPair | FixedPair) -> bool:
        """Within the budget, and its images, if any, are such that the model can take them."""
        try:
            rendered = self._source.render(
                pair,
                Order.POSITIVE_FIRST,
                self._styles,
                max_tokens=self.config.max_prompt_tokens,
                count_tokens=self._count_tokens,
            )
            n_tokens = self._count_tokens(rendered.prompt + rendered.prefill)
            for file in rendered.images:
                size = open_image(file, row_id=pair.pair_id).size
                n_tokens += self._tokenizer.n_tokens(size, row_id=pair.pair_id)
        except PromptBudgetError:
            return False
        except (ImageError, ImageTokensError) as error:
            logger.warning("left out: %s", error)
            return False
        return n_tokens <= self.config.max_prompt_tokens
