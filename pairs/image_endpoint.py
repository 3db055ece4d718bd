"""One client for every image-editing endpoint, through litellm: the edited file and its price."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from contextrl.pairs.endpoints import identity
from contextrl.pairs.errors import JudgeError
from contextrl.pairs.judge_images import PIXELS_PER_TOKEN
from contextrl.pairs.litellm_calls import call_litellm, load_litellm
from contextrl.pairs.patience import Patience

PIXELS_PER_DRAWN_TOKEN = 252
"""Of what gpt-image-1 draws at high quality (1024 x 1024: 4,160 tokens); others take no more."""


@dataclass(frozen=True, slots=True)
class EditReply:
    file: bytes
    """As the server sent it: hostile until `images.open_image` has opened it; empty if none."""
    cost_usd: float | None
    """None when neither litellm nor the caller knows the model's price."""


class ImageEndpoint(Protocol):
    model: str
    identity: str
    """Model and server: two endpoints of one identity would give the same answers."""

    def edit(self, image: bytes, instruction: str, size: tuple[int, int] | None) -> EditReply:
        """`image` is a PNG file; `size` is asked for, None leaves it to the model.

        Raises `JudgeError`; of its kinds `EndpointBusyError` when another try may help, and
        `RefusedError` when another question may do.
        """
        ...

    def estimate(self, width: int, height: int) -> float | None:
        """US dollars for an edit of that size, at most; None when nobody knows the price."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEndpointSettings:
    model: str
    """As litellm names it: `openai/NAME` for any OpenAI-compatible server."""
    base_url: str | None = None
    api_key: str | None = None
    timeout_s: float = 300.0
    tries: int = 5
    first_pause_s: float = 1.0
    usd_per_edit: float | None = None
    """For models whose price litellm does not know."""


class LiteLLMImageEndpoint:
    """`ImageEndpoint` over `litellm.image_edit`. Any number of threads may ask."""

    def __init__(
        self, settings: ImageEndpointSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.model = settings.model
        self.identity = identity(settings.model, settings.base_url)
        self._settings = settings
        self._litellm = load_litellm(settings.model, settings.base_url)
        self._patience = Patience(settings.tries, settings.first_pause_s, sleep)

    def edit(self, image: bytes, instruction: str, size: tuple[int, int] | None) -> EditReply:
        return call_litellm(
            self._litellm, lambda: self._once(image, instruction, size), self.model, self._patience
        )

    def estimate(self, width: int, height: int) -> float | None:
        if self._settings.usd_per_edit is not None:
            return self._settings.usd_per_edit
        try:
            prices = self._litellm.get_model_info(self.model)
        except Exception:  # raised bare for a model that litellm does not know
            return None
        return edit_price(prices, width * height)

    def _once(self, image: bytes, instruction: str, size: tuple[int, int] | None) -> EditReply:
        settings = self._settings
        extra = {"size": f"{size[0]}x{size[1]}"} if size is not None else {}
        reply = self._litellm.image_edit(
            model=settings.model,
            image=image,
            prompt=instruction,
            n=1,
            api_base=settings.base_url,
            api_key=settings.api_key,
            timeout=settings.timeout_s,
            max_retries=0,
            drop_params=True,  # not every provider takes a count or a size
            **extra,
        )
        return EditReply(_file(reply, self.model), self._cost(reply))

    def _cost(self, reply: Any) -> float | None:
        if self._settings.usd_per_edit is not None:
            return self._settings.usd_per_edit
        try:
            cost = self._litellm.completion_cost(
                completion_response=reply, model=self.model, call_type="image_edit"
            )
        except Exception:  # raised bare for a model without a price
            return None
        # Zero is also what litellm makes of a reply that does not say what it used.
        return float(cost) if cost else by_image(self._litellm.get_model_info(self.model))


def edit_price(prices: Mapping[str, Any], pixels: int) -> float | None:
    """By litellm's table of one model: by the image, else by tokens at the finest quality."""
    known = by_image(prices)
    if known is not None:
        return known
    out = prices.get("output_cost_per_image_token") or prices.get("output_cost_per_token")
    into = prices.get("input_cost_per_image_token") or prices.get("input_cost_per_token")
    if not out:
        return None
    drawn, shown = pixels / PIXELS_PER_DRAWN_TOKEN, pixels / PIXELS_PER_TOKEN
    return float(out) * drawn + float(into or 0.0) * shown


def by_image(prices: Mapping[str, Any]) -> float | None:
    found = prices.get("output_cost_per_image") or prices.get("input_cost_per_image")
    return float(found) if found else None


def _file(reply: Any, model: str) -> bytes:
    """Only what the reply itself holds: an address in it is not followed.

    Raises `JudgeError` when it holds nothing else: the next reply would not either.
    """
    for each in getattr(reply, "data", None) or []:
        if not each.b64_json and getattr(each, "url", None):
            raise JudgeError(
                f"{model}: expected the edited image in the reply, found an address, which is not "
                "followed; choose a model or server that sends b64_json"
            )
        try:
            return base64.b64decode(each.b64_json or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            return b""
    return b""
