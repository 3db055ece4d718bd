"""One client for every chat endpoint, through litellm: replies, letter log-probabilities, the bill.

Failures are of two kinds. What may pass (rate limits, time-outs, broken connections, 5xx) is tried
again with growing pauses, or after the pause the server asks for; what will not (a wrong key, an
unknown model, a prompt that is too long) is said at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from contextrl.pairs.errors import JudgeError

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 60.0


class EndpointBusyError(JudgeError):
    """The endpoint failed on every try with something that may pass."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    text: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    """0.0 when neither litellm nor the caller knows the model's price."""
    first_token: Mapping[str, float] = field(default_factory=dict)
    """Token text -> log-probability at the first position; empty if the endpoint hides it."""


class ChatEndpoint(Protocol):
    model: str

    def ask(self, prompt: str, *, max_tokens: int, top_logprobs: int = 0) -> ChatReply:
        """Raises `JudgeError`; `EndpointBusyError` when another try may help."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    model: str
    """As litellm names it: `openai/NAME` for any OpenAI-compatible server."""
    base_url: str | None = None
    api_key: str | None = None
    timeout_s: float = 120.0
    tries: int = 5
    first_pause_s: float = 1.0
    temperature: float = 0.0
    usd_per_million_in: float | None = None
    """For models whose price litellm does not know."""
    usd_per_million_out: float | None = None

    def __post_init__(self) -> None:
        if self.tries < 1 or self.timeout_s <= 0 or self.first_pause_s < 0:
            raise ValueError("expected tries >= 1, timeout_s > 0 and first_pause_s >= 0")


class LiteLLMEndpoint:
    """`ChatEndpoint` over `litellm.completion`. Any number of threads may ask."""

    def __init__(
        self, settings: EndpointSettings, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.model = settings.model
        self._settings = settings
        self._sleep = sleep
        self._litellm = _litellm()

    def ask(self, prompt: str, *, max_tokens: int, top_logprobs: int = 0) -> ChatReply:
        pause = self._settings.first_pause_s
        for number in range(1, self._settings.tries + 1):
            try:
                return self._once(prompt, max_tokens, top_logprobs)
            except self._passing as error:
                if number == self._settings.tries:
                    raise EndpointBusyError(
                        f"{self.model}: expected a reply, {number} tries failed, the last with "
                        f"{type(error).__name__}; run again later, what is cached is not paid twice"
                    ) from error
                wait = min(_asked_pause(error) or pause * random.uniform(1, 1.5), MAX_PAUSE_S)
                logger.info("%s: %s, again in %.1f s", self.model, type(error).__name__, wait)
                self._sleep(wait)
                pause *= 2
            except self._litellm.exceptions.APIError as error:
                raise self._refused(error) from error
            except Exception as error:  # litellm has no root class for what it raises
                if type(error).__module__.split(".")[0] not in {"litellm", "openai"}:
                    raise
                raise self._refused(error) from error
        raise AssertionError("the last try returns or raises")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for this many tokens; 0.0 when nobody knows the price."""
        settings = self._settings
        if settings.usd_per_million_in is not None or settings.usd_per_million_out is not None:
            return (
                prompt_tokens * (settings.usd_per_million_in or 0.0)
                + completion_tokens * (settings.usd_per_million_out or 0.0)
            ) / 1e6
        try:
            parts = self._litellm.cost_per_token(
                model=self.model,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
            )
        except Exception:  # raised bare for a model without a price
            return 0.0
        return float(sum(parts))

    @property
    def _passing(self) -> tuple[type[Exception], ...]:
        errors = self._litellm.exceptions
        return (
            errors.RateLimitError,
            errors.Timeout,
            errors.APIConnectionError,
            errors.InternalServerError,
            errors.ServiceUnavailableError,
            errors.BadGatewayError,
        )

    def _once(self, prompt: str, max_tokens: int, top_logprobs: int) -> ChatReply:
        settings = self._settings
        extra = {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {}
        reply = self._litellm.completion(
            model=settings.model,
            messages=[{"role": "user", "content": prompt}],
            api_base=settings.base_url,
            api_key=settings.api_key,
            timeout=settings.timeout_s,
            temperature=settings.temperature,
            max_tokens=max_tokens,
            num_retries=0,
            max_retries=0,
            **extra,
        )
        usage = getattr(reply, "usage", None)
        prompt_tokens = int(getattr(usage, "prompt_tokens", 0) or 0)
        completion_tokens = int(getattr(usage, "completion_tokens", 0) or 0)
        return ChatReply(
            text=reply.choices[0].message.content or "",
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=self.cost(prompt_tokens, completion_tokens),
            first_token=_first_token(reply.choices[0]),
        )

    def _refused(self, error: Exception) -> JudgeError:
        said = " ".join(str(error).split())[:200]
        return JudgeError(f"{self.model}: the endpoint refuses: {said}")


def _first_token(choice: Any) -> dict[str, float]:
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return {}
    found: dict[str, float] = {}
    for each in getattr(content[0], "top_logprobs", None) or [content[0]]:
        found[str(each.token)] = float(each.logprob)
    return found


def _asked_pause(error: Exception) -> float | None:
    """Seconds of a `Retry-After` header."""
    # litellm keeps the server's headers beside a response of its own making.
    headers = getattr(error, "litellm_response_headers", None) or (
        getattr(getattr(error, "response", None), "headers", None) or {}
    )
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except (TypeError, ValueError):
        return None


def _litellm() -> Any:
    try:
        import litellm
    except ImportError as error:
        raise JudgeError(
            "expected the package `litellm` to reach an endpoint, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm
