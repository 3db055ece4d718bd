"""Messages to token ids along a chat template, so that untrusted text can never speak as a role.

The template is rendered with anchors in place of contents and cut at them. What the template wrote
may hold special tokens; what stood at an anchor (an issue, a file, the output of a command) may
not: a file that contains `<|im_end|>` becomes those ten ordinary characters.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from contextrl.agents.errors import ChatTemplateError
from contextrl.agents.types import Message


class Tokenizer(Protocol):
    """What we use of a transformers `PreTrainedTokenizer`."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id to a token with `content` and `special`."""
        ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...

    def encode(self, text: str, **kwargs: Any) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str: ...


class _Piece(NamedTuple):
    text: str
    trusted: bool
    """Written by the template, so its special tokens are meant."""


class ChatCodec:
    """The one place where text becomes ids. Safe to call from many threads.

    Raises `ChatTemplateError` at construction if the template does not put each content, unchanged,
    between fixed strings, or if an assistant's turn does not end with one special token.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, template_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        # A fast tokenizer keeps `split_special_tokens` as a flag on its shared Rust object: two
        # threads that want different values would get each other's. Hence a copy and a lock.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()
        self._template_kwargs = dict(template_kwargs or {})
        self._special_ids = {
            token.content: id_
            for id_, token in self._tokenizer.added_tokens_decoder.items()
            if token.special
        }
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special_pattern = re.compile(
            "(" + "|".join(re.escape(s) for s in longest_first) + ")" if longest_first else r"(?!)"
        )
        between, after = self._learn_turns()
        match = self._special_pattern.match(between)
        if match is None:
            raise ChatTemplateError(
                "expected the chat template to end an assistant turn with a special token, found "
                f"{between[:40]!r}; use a ChatML-like template"
            )
        self.end_id: int = self._special_ids[match.group()]
        """Ends an assistant turn, in the template and in what the policy samples."""
        self._before_observation = between[match.end() :]
        self._after_observation = after

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation up to where the assistant speaks."""
        cuts = self._render([message.role for message in messages])
        pieces = [_Piece(cuts[0], True)]
        for message, cut in zip(messages, cuts[1:], strict=True):
            pieces += [_Piece(message.content, False), _Piece(cut, True)]
        return self._encode(pieces)

    def observation_ids(self, content: str, *, ended: bool) -> list[int]:
        """All that stands between an assistant's text and its next one, `content` in the middle.

        `ended` says that the reply brought its own end token; otherwise it is supplied here.
        """
        pieces = [
            _Piece(self._before_observation, True),
            _Piece(content, False),
            _Piece(self._after_observation, True),
        ]
        return ([] if ended else [self.end_id]) + self._encode(pieces)

    def reply_ids(self, text: str) -> list[int]:
        """A whole reply as the policy would have sampled it, end token included."""
        return [*self._encode([_Piece(text, False)]), self.end_id]

    def reply_text(self, token_ids: Sequence[int], *, finished: bool) -> str:
        """The text of sampled ids; the stop token of a finished reply is not part of it."""
        body = list(token_ids)
        if finished and body and body[-1] in self._special_ids.values():
            body.pop()
        with self._lock:
            return self._tokenizer.decode(
                body, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )

    def _learn_turns(self) -> tuple[str, str]:
        """The template's text after an assistant's content, and after the user's that follows."""
        cuts = self._render(["user", "assistant", "user"])
        pieces = [_Piece(cuts[0], True)]
        for index, cut in enumerate(cuts[1:]):
            pieces += [_Piece(_anchor(index), False), _Piece(cut, True)]
        whole = "".join(piece.text for piece in pieces)
        with self._lock:
            expected = self._tokenizer.encode(
                whole, add_special_tokens=False, split_special_tokens=False
            )
        if self._encode(pieces) != list(expected):
            raise ChatTemplateError(
                "expected a conversation to have the same ids in one piece and cut at its special "
                "tokens, found different ones; this tokenizer's special tokens absorb whitespace"
            )
        return cuts[2], cuts[3]

    def _render(self, roles: Sequence[str]) -> list[str]:
        """The template's text before, between and after the contents: one more than `roles`."""
        rest = self._tokenizer.apply_chat_template(
            [{"role": role, "content": _anchor(i)} for i, role in enumerate(roles)],
            add_generation_prompt=True,
            tokenize=False,
            **self._template_kwargs,
        )
        cuts = []
        for index, role in enumerate(roles):
            before, found, rest = rest.partition(_anchor(index))
            if not found or _anchor(index) in rest:
                raise ChatTemplateError(
                    f"expected the chat template to show the {role} message {index} once, found it "
                    f"{'more often' if found else 'missing, changed or out of order'}"
                )
            cuts.append(before)
        return [*cuts, rest]

    def _encode(self, pieces: Iterable[_Piece]) -> list[int]:
        """Ids of the concatenation. Plain text is encoded in maximal runs, so merges across the
        edge of a piece come out as if the tokenizer had seen the whole string."""
        ids: list[int] = []
        run: list[str] = []
        for piece in pieces:
            if not piece.trusted:
                run.append(piece.text)
                continue
            for part in self._special_pattern.split(piece.text):
                if part in self._special_ids:
                    ids += self._encode_plain("".join(run))
                    ids.append(self._special_ids[part])
                    run = []
                else:
                    run.append(part)
        return ids + self._encode_plain("".join(run))

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        with self._lock:
            return list(
                self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            )


_codecs: weakref.WeakKeyDictionary[Tokenizer, dict[str, ChatCodec]] = weakref.WeakKeyDictionary()
_codecs_lock = threading.Lock()


def codec_of(
    tokenizer: Tokenizer, *, template_kwargs: Mapping[str, Any] | None = None
) -> ChatCodec:
    """The codec of a tokenizer, made once: copying a 150k vocabulary per episode would show."""
    key = json.dumps(template_kwargs or {}, sort_keys=True)
    with _codecs_lock:
        codecs = _codecs.setdefault(tokenizer, {})
        if key not in codecs:
            codecs[key] = ChatCodec(tokenizer, template_kwargs=template_kwargs)
        return codecs[key]


def _anchor(index: int) -> str:
    # One plain word: no template trims it, splits on it, or takes it for mark-up.
    return f"CONTENTANCHOR{index}X"
