"""Replies of veRL's inference server, or a `PolicyError` that says why there is none.

veRL's client raises whatever its server raised, waits for ever for one that hangs, and calls a
reply complete that the server cut at the end of its own context.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import ray

from contextrl.agents.errors import ContextFullError, PolicyError
from contextrl.agents.tokens import ServedTokens

GRACE_S = 300.0
"""A reply that began in time may take this much longer than its episode had left: it is late, and
its server not yet dead."""

# What a server's own bug or death arrives as. Ray wraps what a remote actor raised.
_FAILURES = (ray.exceptions.RayError, AssertionError, OSError, RuntimeError, ValueError)

NO_ROOM = "leaves no room to generate"
"""In what a server raises, veRL's vLLM and ours, when its context holds the prompt and no more."""


class ServerManagerTokens:
    """`TokenServer` of one episode over veRL's server manager; called from the episode's thread,
    runs on veRL's loop.
    """

    def __init__(
        self,
        manager: Any,
        sampling_params: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        *,
        special_ids: Iterable[int],
        wall_clock_s: float,
    ) -> None:
        """`special_ids` hold the stop tokens; `wall_clock_s` begins with the first reply."""
        self._manager = manager
        self._sampling_params = sampling_params
        self._loop = loop
        self._special_ids = frozenset(special_ids)
        self._wall_clock_s = wall_clock_s
        self._began: float | None = None
        self._full = False
        self.global_steps: list[int] = []

    def generate(
        self, prompt_ids: Sequence[int], *, max_new_tokens: int, session_id: str
    ) -> ServedTokens:
        if self._full:
            raise ContextFullError("the inference server cut the last reply: its context is full")
        now = time.monotonic()
        is_first = self._began is None
        self._began = now if self._began is None else self._began
        request = server_reply(
            self._manager,
            timeout_s=max(0.0, self._began + self._wall_clock_s - now) + GRACE_S,
            request_id=session_id,
            prompt_ids=list(prompt_ids),
            sampling_params={
                **self._sampling_params,
                "max_tokens": max_new_tokens,
                "logprobs": True,
            },
        )
        try:
            output = asyncio.run_coroutine_threadsafe(request, self._loop).result()
        except PolicyError as error:
            if NO_ROOM in str(error) and not is_first:
                raise ContextFullError(str(error)) from error
            raise
        step = output.extra_fields.get("global_steps")
        if step is not None:
            self.global_steps.append(step)
        self._full = was_cut(output, asked=max_new_tokens, special_ids=self._special_ids)
        return ServedTokens(
            tuple(output.token_ids), tuple(output.log_probs), False if self._full else None
        )


async def server_reply(manager: Any, *, timeout_s: float, **request: Any) -> Any:
    """What `manager.generate(**request)` gives, a veRL `TokenOutput` with at least one token.

    Raises `PolicyError` if the server fails, or gives nothing within `timeout_s`.
    """
    try:
        output = await asyncio.wait_for(manager.generate(**request), timeout_s)
    except TimeoutError as error:
        raise PolicyError(
            f"expected a reply of the inference server within {timeout_s:.0f} s, found none; look "
            "for its failure in the training's log"
        ) from error
    except _FAILURES as error:
        cause = getattr(error, "cause", None) or error  # Ray's own text is a traceback
        text = " ".join(str(cause).split())[:400]
        raise PolicyError(f"the inference server failed: {type(cause).__name__}: {text}") from error
    if output.stop_reason in ("aborted", "abort"):
        raise PolicyError("the inference server gave its request up; is it being stopped?")
    if not output.token_ids:
        raise PolicyError("expected at least one token of the inference server, found none")
    return output


def was_cut(output: Any, *, asked: int, special_ids: frozenset[int]) -> bool:
    """Whether the server's context ended this reply, before a stop token or the tokens asked for.

    veRL's vLLM server asks for no more than fits and calls the reply complete. Every stop token is
    a special one, so a shorter reply that ends in no such token was cut.
    """
    ids: Sequence[int] = output.token_ids
    if not ids or len(ids) >= asked:
        return False
    return output.stop_reason == "length" or ids[-1] not in special_ids
