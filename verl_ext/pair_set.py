"""The training pairs of one run, rendered and encoded when first drawn."""

from __future__ import annotations

import logging
from typing import Any

from contextrl.pairs.render import EncodedPair, PairPromptStyle, encode, orders
from contextrl.pairs.render import token_counter as make_token_counter
from contextrl.pairs.types import Order
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_fit import look_through
from contextrl.verl_ext.pair_source import (
    FixedPair,
    OwnPair,
    PairSource,
    pair_styles,
    training_pairs,
)
from contextrl.verl_ext.sampler import Draw
from contextrl.verl_ext.settings import CAConfig

logger = logging.getLogger(__name__)


def pair_style(config: CAConfig) -> PairPromptStyle:
    """The configured style for trajectories, with the prefill that the configuration names."""
    return pair_styles(config.style, config.prefill).trajectories


MAX_IMAGE_BYTES = 2**29
"""Of prepared images, which are megabytes each, that are kept from one draw to the next."""

_FLIPPED = {
    Order.POSITIVE_FIRST: Order.POSITIVE_SECOND,
    Order.POSITIVE_SECOND: Order.POSITIVE_FIRST,
}


class PairSet:
    """Pairs that the model can take; which those are is found once."""

    def __init__(self, config: CAConfig, pairs: PairSource, tokenizer: Any) -> None:
        self.config = config
        self._source = pairs
        self._tokenizer = tokenizer
        self._styles = pair_styles(config.style, config.prefill)
        self._count_tokens = make_token_counter(tokenizer)
        self._encoded: dict[tuple[int, Order], EncodedPair] = {}
        self._image_bytes = 0
        budget = config.max_prompt_tokens
        seen = list(look_through(pairs, tokenizer, self._styles, max_tokens=budget))
        self._numbers = [each.number for each in seen if not each.reason]
        self._orders = orders((each.pair_id for each in seen if each.pair_id), config.seed)
        logger.info("%d/%d pairs fit %d tokens", len(self), len(pairs), budget)
        if not self._numbers:
            first = f"; the first: {seen[0].reason}" if seen else ""
            raise ConfigError(
                "expected pairs that the model can take and that fit "
                f"ca.max_prompt_tokens={budget} in {config.pairs}, found none of {len(pairs)}; "
                f"raise the budget or mine shorter ones{first}"
            )

    @classmethod
    def load(cls, config: CAConfig, tokenizer: Any) -> PairSet:
        """Reads `config.pairs`. Raises `PairFileError`, `SourceError` or `ConfigError`."""
        return cls(config, training_pairs(config), tokenizer)

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
            self._image_bytes += _image_bytes(self._encoded[key])
            self._drop_oldest()
        return self._encoded[key]

    def _drop_oldest(self) -> None:
        """What one rollout step draws is kept in any case, for its updates."""
        for oldest in list(self._encoded)[: -2 * self.config.pairs_per_step]:
            if self._image_bytes <= MAX_IMAGE_BYTES:
                break
            self._image_bytes -= _image_bytes(self._encoded.pop(oldest))

    def _encode(self, pair: OwnPair | FixedPair, order: Order) -> EncodedPair:
        rendered = self._source.render(
            pair,
            order,
            self._styles,
            max_tokens=self.config.max_prompt_tokens,
            count_tokens=self._count_tokens,
        )
        return encode(rendered, self._tokenizer)


def _image_bytes(pair: EncodedPair) -> int:
    pixels = None if pair.vision is None else pair.vision.pixel_values
    return 0 if pixels is None else int(pixels.nbytes)
