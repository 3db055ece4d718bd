"""A conversation kept as token ids: what was sampled is what is scored, bit for bit.

Nothing is decoded and encoded again. The prompt comes from the chat template once; sampled ids are
appended as they came; an observation contributes only the ids that the template puts around it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from contextrl.agents.codec import ChatCodec, Tokenizer, codec_of
from contextrl.agents.errors import PolicyError, PromptTooLongError
from contextrl.agents.types import Generation, Message, TokenRecord


@dataclass(frozen=True, slots=True)
class ServedTokens:
    """One reply of a server."""

    token_ids: Sequence[int]
    """At least one; includes the stop token when there was one."""
    logprobs: Sequence[float]
    """Under the sampling distribution, natural log; one per token."""
    finished: bool | None = None
    """Ended by a stop token rather than by `max_new_tokens`. None when the server does not say:
    then the template's end token, or fewer tokens than asked for, means yes."""


class TokenServer(Protocol):
    """An inference server with token ids in and out. Safe to call from many threads."""

    def generate(
        self, prompt_ids: Sequence[int], *, max_new_tokens: int, session_id: str
    ) -> ServedTokens:
        """Sample at most `max_new_tokens` after `prompt_ids`. Raises `PolicyError` if it failed.

        Calls of one session extend each other's prompts, so a server may keep its cache by it.
        """
        ...


class TokenPolicy:
    """A `Policy` on a `TokenServer`.

    `template_kwargs` reach the chat template, e.g. `{"enable_thinking": False}` for Qwen3.
    """

    def __init__(
        self,
        name: str,
        server: TokenServer,
        tokenizer: Tokenizer,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._server = server
        self._codec = codec_of(tokenizer, template_kwargs=template_kwargs)

    def open(self, messages: Sequence[Message], *, max_context_tokens: int) -> TokenSession:
        prompt_ids = self._codec.prompt_ids(messages)
        if len(prompt_ids) + 1 > max_context_tokens:
            raise PromptTooLongError(
                f"expected a prompt of at most {max_context_tokens - 1} tokens, so that one reply "
                f"token fits the context of {max_context_tokens}; found {len(prompt_ids)}"
            )
        return TokenSession(self._server, self._codec, prompt_ids, max_context_tokens)


class TokenSession:
    """Alternates `act` and `observe`, beginning with `act`. Never longer than its context."""

    def __init__(
        self, server: TokenServer, codec: ChatCodec, prompt_ids: list[int], max_context_tokens: int
    ) -> None:
        self._server = server
        self._codec = codec
        self._session_id = uuid.uuid4().hex
        self._max_context_tokens = max_context_tokens
        self._prompt_ids = prompt_ids
        self._response_ids: list[int] = []
        self._mask: list[int] = []
        self._logprobs: list[float] = []
        self._replied = False
        """The last tokens are a reply, so an observation must come before the next one."""

    def room(self) -> int:
        return self._max_context_tokens - len(self._prompt_ids) - len(self._response_ids)

    def act(self, *, max_new_tokens: int) -> Generation:
        budget = min(max_new_tokens, self.room())
        if self._replied or budget < 1:
            raise RuntimeError(
                f"act needs an observation since the last reply ({not self._replied}) and room for "
                f"a token ({budget})"
            )
        reply = self._server.generate(
            [*self._prompt_ids, *self._response_ids],
            max_new_tokens=budget,
            session_id=self._session_id,
        )
        n_tokens = len(reply.token_ids)
        if not 1 <= n_tokens <= budget or len(reply.logprobs) != n_tokens:
            raise PolicyError(
                f"expected 1 to {budget} tokens and a log-probability for each, found {n_tokens} "
                f"tokens and {len(reply.logprobs)} log-probabilities; check the inference server"
            )
        self._append(reply.token_ids, mask=1, logprobs=reply.logprobs)
        self._replied = True
        finished = reply.finished
        if finished is None:
            finished = n_tokens < budget or reply.token_ids[-1] == self._codec.end_id
        return Generation(
            text=self._codec.reply_text(reply.token_ids, finished=finished),
            token_ids=tuple(reply.token_ids),
            logprobs=tuple(reply.logprobs),
            truncated=not finished,
        )

    def observe(self, content: str) -> bool:
        if not self._replied:
            raise RuntimeError("observe needs a reply to answer")
        ended = self._response_ids[-1] == self._codec.end_id
        ids = self._codec.observation_ids(content, ended=ended)
        if len(ids) + 1 > self.room():
            return False
        self._append(ids, mask=0, logprobs=[0.0] * len(ids))
        self._replied = False
        return True

    def tokens(self) -> TokenRecord:
        return TokenRecord(
            prompt_ids=tuple(self._prompt_ids),
            response_ids=tuple(self._response_ids),
            response_mask=tuple(self._mask),
            response_logprobs=tuple(self._logprobs),
        )

    def _append(self, ids: Sequence[int], *, mask: int, logprobs: Sequence[float]) -> None:
        self._response_ids += ids
        self._mask += [mask] * len(ids)
        self._logprobs += logprobs
