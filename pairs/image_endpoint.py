"""One client for every image-editing endpoint, through litellm: the edited file and its price."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from contextrl.pairs.errors import JudgeError
from contextrl.pairs.litellm_calls import call_litellm, load_litellm
from contextrl.pairs.patience import Patience


@dataclass(frozen=True, slots=True)
class EditReply:
    file: bytes
    """As the server sent it: hostile until `images.open_image` has opened it; empty if none."""
    cost_usd: float
    """0.0 when neither litellm nor the caller knows the model's price."""


class ImageEndpoint(Protocol):
    model: str

    def edit(self, image: bytes, instruction: str) -> EditReply:
        """`image` is a PNG file. Raises `JudgeError`; `EndpointBusyError` if a try may help."""
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
        self._settings = settings
        self._litellm = load_litellm()
        self._patience = Patience(settings.tries, settings.first_pause_s, sleep)

    def edit(self, image: bytes, instruction: str) -> EditReply:
        return call_litellm(
            self._litellm, lambda: self._once(image, instruction), self.model, self._patience
        )

    def _once(self, image: bytes, instruction: str) -> EditReply:
        settings = self._settings
        reply = self._litellm.image_edit(
            model=settings.model,
            image=image,
            prompt=instruction,
            n=1,
            api_base=settings.base_url,
            api_key=settings.api_key,
            timeout=settings.timeout_s,
            max_retries=0,
        )
        return EditReply(_file(reply, self.model), self._cost(reply))

    def _cost(self, reply: Any) -> float:
        if self._settings.usd_per_edit is not None:
            return self._settings.usd_per_edit
        try:
            cost = self._litellm.completion_cost(
                completion_response=reply, model=self.model, call_type="image_edit"
            )
        except Exception:  # raised bare for a model without a price
            return 0.0
        return float(cost or 0.0)


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
