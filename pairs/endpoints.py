"""One client for every chat endpoint, through litellm: replies, letter log-probabilities, the bill.

What may pass (rate limits, time-outs, broken connections, 5xx) is tried again with growing pauses,
or after the pause the server asks for; what will not is said at once, of this question or of all.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from contextrl.pairs.errors import RefusedError
from contextrl.pairs.litellm_calls import call_litellm, load_litellm
from contextrl.pairs.patience import Patience


@dataclass(frozen=True, slots=True)
class ChatReply:
    text: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """None when neither litellm nor the caller knows the model's price."""
    first_token: Mapping[str, float] = field(default_factory=dict)
    """Token text -> log-probability at the first position; empty if the endpoint hides it."""
    fault: str = ""
    """Why the text is no whole answer: cut off, withheld, empty. Empty when it is one."""

    def whole_text(self) -> str:
        """Raises `RefusedError` when it is no whole answer, though it may have been paid for."""
        if self.fault:
            raise RefusedError(self.fault)
        return self.text


class ChatEndpoint(Protocol):
    model: str
    identity: str
    """Model and server: two endpoints of one identity would give the same answers."""

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars; None when nobody knows the price."""
        ...

    def ask(
        self,
        prompt: str,
        *,
        max_tokens: int,
        top_logprobs: int = 0,
        images: Sequence[bytes] = (),
        mark: str = "",
    ) -> ChatReply:
        """`images` are PNG files. They stand before the prompt, or where it says `mark`, once each.

        Raises `JudgeError`; of its kinds `EndpointBusyError` when another try may help, and
        `RefusedError` when another question may do.
        """
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
    temperature: float | None = 0.0
    """Left out for a model that litellm knows not to take it; None is never sent."""
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
        self.identity = identity(settings.model, settings.base_url)
        self._settings = settings
        self._litellm = load_litellm(settings.model, settings.base_url)
        self._patience = Patience(settings.tries, settings.first_pause_s, sleep)

    def ask(
        self,
        prompt: str,
        *,
        max_tokens: int,
        top_logprobs: int = 0,
        images: Sequence[bytes] = (),
        mark: str = "",
    ) -> ChatReply:
        content = _content(prompt, images, mark)
        return call_litellm(
            self._litellm,
            lambda: self._once(content, max_tokens, top_logprobs),
            self.model,
            self._patience,
        )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
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
            return None
        return float(sum(parts))

    def _once(self, content: Any, max_tokens: int, top_logprobs: int) -> ChatReply:
        settings = self._settings
        extra: dict[str, Any] = {}
        if top_logprobs:
            extra |= {"logprobs": True, "top_logprobs": top_logprobs}
        if settings.temperature is not None:
            extra["temperature"] = settings.temperature
        reply = self._litellm.completion(
            model=settings.model,
            messages=[{"role": "user", "content": content}],
            api_base=settings.base_url,
            api_key=settings.api_key,
            timeout=settings.timeout_s,
            max_tokens=max_tokens,
            drop_params=True,  # reasoning models take neither temperature nor log-probabilities
            num_retries=0,
            max_retries=0,
            **extra,
        )
        usage = getattr(reply, "usage", None)
        prompt_tokens = int(getattr(usage, "prompt_tokens", 0) or 0)
        completion_tokens = int(getattr(usage, "completion_tokens", 0) or 0)
        choice = reply.choices[0] if getattr(reply, "choices", None) else None
        text = (choice.message.content if choice is not None else None) or ""
        return ChatReply(
            text=text,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=self.cost(prompt_tokens, completion_tokens),
            first_token=_first_token(choice),
            fault=_fault(choice, text, max_tokens, self.model),
        )


def identity(model: str, base_url: str | None) -> str:
    return f"{model}@{base_url.rstrip('/')}" if base_url else model


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _content(prompt: str, images: Sequence[bytes], mark: str) -> Any:
    """Raises `ValueError` unless the prompt holds `mark` once for each image."""
    if not images:
        return prompt
    pieces = prompt.split(mark) if mark else [*[""] * len(images), prompt]
    parts: list[dict[str, Any]] = []
    for text, file in zip(pieces, [*images, None], strict=True):
        if text.strip():  # some servers refuse blank parts
            parts.append({"type": "text", "text": text})
        if file is not None:
            parts.append({"type": "image_url", "image_url": {"url": data_url(file)}})
    return parts


def _fault(choice: Any, text: str, max_tokens: int, model: str) -> str:
    finish = getattr(choice, "finish_reason", None)
    if finish == "length":
        return (
            f"{model}: the reply was cut off at {max_tokens} tokens, reasoning included; raise "
            "--max-reply-tokens"
        )
    if finish == "content_filter":
        return f"{model}: refused: the reply was withheld by a content filter"
    return "" if text.strip() else f"{model}: the reply was empty"


def _first_token(choice: Any) -> dict[str, float]:
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return {}
    found: dict[str, float] = {}
    for each in getattr(content[0], "top_logprobs", None) or [content[0]]:
        found[str(each.token)] = float(each.logprob)
    return found
