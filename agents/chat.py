"""A policy behind any OpenAI-compatible endpoint, such as vLLM's or a vendor's.

Text in, text out: such an endpoint hides its token ids, so these episodes can be graded, mined and
replayed but never trained on as they are. One POST needs no client library.
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextrl.agents.errors import AgentsError, ContextFullError, PolicyError
from contextrl.agents.formats.json_calls import CLOSE, OPEN
from contextrl.agents.types import Generation, Message

logger = logging.getLogger(__name__)

_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_CONTEXT_WORDS = ("context length", "context_length", "context window", "maximum context")
_CHARS_PER_TOKEN = 3
"""Errs on the side of a full context: code has three to four characters per token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    base_url: str
    """Up to and including the version, e.g. `http://localhost:8000/v1`."""
    model: str
    api_key: str = ""
    timeout_s: float = 600.0
    retries: int = 4
    """After the first try, waiting 1, 2, 4, ... seconds, or what the server asks for."""
    max_delay_s: float = 60.0
    extra: Mapping[str, Any] | None = None
    """Sampling parameters as the endpoint names them: `temperature`, `top_p`, ..."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise AgentsError(f"endpoint: expected http(s)://HOST/v1, found {self.base_url!r}")


@dataclass(frozen=True, slots=True)
class ChatReply:
    text: str
    truncated: bool
    total_tokens: int | None
    """Prompt and reply together, if the server counts."""


class ChatPolicy:
    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.model
        self._endpoint = endpoint

    def open(self, messages: Sequence[Message], *, max_context_tokens: int) -> ChatSession:
        return ChatSession(self._endpoint, messages, max_context_tokens)


class ChatSession:
    """Counts tokens only as far as the server reports them."""

    def __init__(
        self, endpoint: Endpoint, messages: Sequence[Message], max_context_tokens: int
    ) -> None:
        self._endpoint = endpoint
        self._messages = list(messages)
        self._max_context_tokens = max_context_tokens
        self._total_tokens: int | None = None

    def room(self) -> int:
        if self._total_tokens is None:
            return sys.maxsize
        return self._max_context_tokens - self._total_tokens

    def act(self, *, max_new_tokens: int) -> Generation:
        reply = complete(
            self._endpoint, self._messages, max_new_tokens=min(max_new_tokens, self.room())
        )
        self._total_tokens = reply.total_tokens
        self._messages.append(Message(role="assistant", content=reply.text))
        return Generation(text=reply.text, truncated=reply.truncated)

    def observe(self, content: str) -> bool:
        estimate = len(content) // _CHARS_PER_TOKEN
        if estimate + 1 > self.room():
            return False
        if self._total_tokens is not None:
            self._total_tokens += estimate
        self._messages.append(Message(role="user", content=content))
        return True

    def tokens(self) -> None:
        return None


def complete(endpoint: Endpoint, messages: Sequence[Message], *, max_new_tokens: int) -> ChatReply:
    """One reply, tried again while the endpoint is busy or unreachable.

    Raises `ContextFullError` if the endpoint says so, `PolicyError` for every other failure.
    """
    request = _request(endpoint, messages, max_new_tokens)
    for number in range(endpoint.retries + 1):
        try:
            with urllib.request.urlopen(request, timeout=endpoint.timeout_s) as response:
                return _reply(endpoint, response.read())
        except urllib.error.HTTPError as error:
            body = _excerpt(error)
            if error.code in (400, 413, 422) and any(w in body.lower() for w in _CONTEXT_WORDS):
                raise ContextFullError(f"{endpoint.base_url}: {body}") from error
            problem = f"HTTP {error.code}: {body}"
            if error.code not in _TRANSIENT:
                raise PolicyError(f"{endpoint.base_url}: {problem}") from error
            delay_s = _asked_delay(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
            delay_s = None
        if number < endpoint.retries:
            if delay_s is None:  # jitter, so that many episodes do not come back at once
                delay_s = 2.0**number * random.uniform(0.5, 1.0)
            delay_s = min(delay_s, endpoint.max_delay_s)
            logger.warning("%s: %s; next try in %.1f s", endpoint.base_url, problem, delay_s)
            time.sleep(delay_s)
    raise PolicyError(f"{endpoint.base_url}: {endpoint.retries + 1} tries failed, last: {problem}")


def _request(
    endpoint: Endpoint, messages: Sequence[Message], max_new_tokens: int
) -> urllib.request.Request:
    body = {
        **(endpoint.extra or {}),
        "model": endpoint.model,
        "messages": [message.model_dump() for message in messages],
        "max_tokens": max_new_tokens,
    }
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    return urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")


def _reply(endpoint: Endpoint, body: bytes) -> ChatReply:
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        message = choice["message"]
        text = "\n\n".join(filter(None, [message.get("content"), *_calls(message)]))
        total_tokens = (content.get("usage") or {}).get("total_tokens")
        # JSON may carry lone surrogates, which neither a shell nor a file can.
        text = text.encode("utf-8", "replace").decode()
        return ChatReply(text, choice.get("finish_reason") == "length", total_tokens)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PolicyError(
            f"{endpoint.base_url}: expected a chat completion, found {body[:120]!r}"
        ) from error


def _calls(message: Mapping[str, Any]) -> Iterator[str]:
    """Calls that the server parsed out of the text, put back as the model's template writes them.

    Servers with a tool parser switched on do that unasked, and leave the text empty.
    """
    for call in message.get("tool_calls") or ():
        function = call["function"]
        name, arguments = json.dumps(str(function["name"])), function.get("arguments") or "{}"
        if not isinstance(arguments, str):  # a string by the protocol, an object of some servers
            arguments = json.dumps(arguments)
        yield f'{OPEN}\n{{"name": {name}, "arguments": {arguments}}}\n{CLOSE}'


def _excerpt(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(4000).decode("utf-8", "replace").split())[:300]
    except (OSError, http.client.HTTPException):
        return str(error.reason)


def _asked_delay(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None  # a date; our own schedule is good enough
