"""Trying again what may pass: growing pauses, or the pause that the server asks for."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from contextrl.pairs.errors import EndpointBusyError

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    tries: int = 5
    first_pause_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.tries < 1 or self.first_pause_s < 0:
            raise ValueError("expected tries >= 1 and first_pause_s >= 0")

    def call(self, once: Callable[[], T], passing: tuple[type[Exception], ...], who: str) -> T:
        """What `once` returns. Raises `EndpointBusyError` when each try raised one of `passing`."""
        pause = self.first_pause_s
        for number in range(1, self.tries + 1):
            try:
                return once()
            except passing as error:
                if number == self.tries:
                    raise EndpointBusyError(
                        f"{who}: expected a reply, {number} tries failed, the last with "
                        f"{type(error).__name__}; run again later, what is cached is not paid twice"
                    ) from error
                wait = min(asked_pause(error) or pause * random.uniform(1, 1.5), MAX_PAUSE_S)
                logger.info("%s: %s, again in %.1f s", who, type(error).__name__, wait)
                self.sleep(wait)
                pause *= 2
        raise AssertionError("the last try returns or raises")


def asked_pause(error: Exception) -> float | None:
    """Seconds of a `Retry-After` header."""
    # litellm keeps the server's headers beside a response of its own making.
    headers = getattr(error, "litellm_response_headers", None) or (
        getattr(getattr(error, "response", None), "headers", None) or {}
    )
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except (TypeError, ValueError):
        return None
