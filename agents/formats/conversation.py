"""Messages of any chat format -> ours, and the steps they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from contextrl.agents.errors import ForeignRowError
from contextrl.agents.formats.calls import command_of, written_call
from contextrl.agents.types import Message, Role, Step

MAX_MESSAGES = 5000

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "user",
    "function": "user",
    "exit": "user",
    "assistant": "assistant",
    "ai": "assistant",
}
_RETURN_CODE = re.compile(r"<returncode>(-?\d{1,10})</returncode>")
_ISSUES = (
    re.compile(r"<pr_description>(.*?)</pr_description>", re.DOTALL),
    re.compile(r"<issue_description>(.*?)</issue_description>", re.DOTALL),
    re.compile(r"ISSUE:\n(.*?)\n+INSTRUCTIONS:", re.DOTALL),
)
_ISSUE_LEAD = re.compile(r"\s*Consider the following PR description:\s*")


def messages_of(raw: object) -> tuple[Message, ...]:
    """The conversation. Raises `ForeignRowError` that names the message at fault."""
    if not isinstance(raw, list) or not raw:
        raise ForeignRowError(f"expected a list of messages, found {_kind(raw)}")
    if len(raw) > MAX_MESSAGES:
        raise ForeignRowError(f"expected at most {MAX_MESSAGES} messages, found {len(raw)}")
    messages = tuple(_message(number, each) for number, each in enumerate(raw))
    if not any(message.role == "assistant" for message in messages):
        raise ForeignRowError("expected a reply of the agent, found none")
    return messages


def steps_of(messages: Sequence[Message]) -> tuple[Step, ...]:
    """One step per reply; what follows it, up to the next reply, is its observation."""
    steps: list[Step] = []
    for message in messages:
        if message.role == "assistant":
            steps.append(
                Step(text=message.content, command=command_of(message.content), observation="")
            )
        elif steps:
            seen = "\n".join(filter(None, [steps[-1].observation, message.content]))
            code = _RETURN_CODE.match(message.content)
            steps[-1] = steps[-1].model_copy(
                update={"observation": seen, "exit_code": int(code[1]) if code else None}
            )
    return tuple(steps)


def issue_in(messages: Iterable[Message]) -> str:
    """The issue text of the task prompt; the whole prompt when nothing marks it."""
    for message in messages:
        if message.role != "user":
            continue
        for pattern in _ISSUES:
            if (found := pattern.search(message.content)) is not None:
                return _ISSUE_LEAD.sub("", found[1], count=1).strip()
        return message.content.strip()
    return ""


def _message(number: int, raw: object) -> Message:
    if not isinstance(raw, dict):
        raise ForeignRowError(f"message {number}: expected an object, found {_kind(raw)}")
    role = _ROLES.get(str(raw.get("role")))
    if role is None:
        raise ForeignRowError(f"message {number}: unknown role {str(raw.get('role'))[:40]!r}")
    pieces = [_text(number, raw.get("content"))]
    if role == "assistant":
        pieces += [_call(number, call) for call in raw.get("tool_calls") or ()]
    return Message(role=role, content="\n\n".join(filter(None, pieces)))


def _text(number: int, content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content.replace("\r\n", "\n")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part.replace("\r\n", "\n") for part in parts if isinstance(part, str))
    raise ForeignRowError(f"message {number}: expected text, found {_kind(content)}")


def _call(number: int, call: Any) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ForeignRowError(f"message {number}: a tool call without a function name")
    return written_call(function["name"], function.get("arguments"))


def _kind(value: object) -> str:
    return "nothing" if value in (None, [], "") else type(value).__name__
