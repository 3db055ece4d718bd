"""Function calls as models write them: Qwen's JSON between tags, and OpenHands' own tags.

One call per reply, as one command is one step. Whatever else a reply holds is its thought.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contextrl.agents.actions.installing import equipped
from contextrl.agents.actions.tools import FINISH, OPENHANDS_TOOLS, checked
from contextrl.agents.errors import FormatError
from contextrl.agents.formats.calls import tag_calls, written_call
from contextrl.agents.formats.json_calls import CLOSE, DECODER, OPEN
from contextrl.agents.parsing import after_thinking
from contextrl.envs.types import Task

PROGRAMS = ("str_replace_editor",)
_FUNCTION = "<function="
_FUNCTION_END = "</function>"
_PARAMETER_END = "</parameter>"


@dataclass(frozen=True, slots=True)
class _Calls:
    """What both forms share."""

    name: str

    def write(self, command: str, *, thought: str) -> str:
        word, _, rest = command.partition(" ")
        if word == FINISH:
            call = self._written(FINISH, {"message": rest.removeprefix("--message ") or thought})
        else:
            call = self._written("execute_bash", {"command": command})
        return f"{thought}\n\n{call}"

    def _written(self, name: str, arguments: Mapping[str, str]) -> str:
        raise NotImplementedError

    def equip(self, task: Task) -> Task:
        return equipped(task, PROGRAMS)


@dataclass(frozen=True, slots=True)
class JsonCalls(_Calls):
    """Hermes' form, which the templates of Qwen2.5 and Qwen3 are written in."""

    name: str = "tool_call"

    @property
    def declaration(self) -> str:
        """Character for character what Qwen3's template writes for these tools."""
        tools = "\n".join(json.dumps(tool.schema()) for tool in OPENHANDS_TOOLS)
        return (
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n"
            f"<tools>\n{tools}\n</tools>\n\n"
            "For each function call, return a json object with function name and arguments within "
            "<tool_call></tool_call> XML tags:\n<tool_call>\n"
            '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
        )

    def read(self, text: str, *, truncated: bool = False) -> str:
        said = after_thinking(text)
        before, found, _ = said.partition(OPEN)
        if not found:
            raise _refusal("found none", _JSON_REMINDER, truncated)
        start = len(before) + len(OPEN)
        start += len(said[start:]) - len(said[start:].lstrip())
        try:
            call, end = DECODER.raw_decode(said, start)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise _refusal(f"its JSON cannot be read ({what})", _JSON_REMINDER, truncated) from None
        rest = said[end:].lstrip()
        if not rest.startswith(CLOSE):
            raise _refusal(f"it does not end with {CLOSE}", _JSON_REMINDER, truncated)
        if OPEN in rest:
            raise _refusal("found several", _JSON_REMINDER)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise _refusal("it is no object with a name and arguments", _JSON_REMINDER)
        arguments = call.get("arguments", {})
        if not isinstance(arguments, dict):
            raise _refusal("its arguments are no object", _JSON_REMINDER)
        return _command(call["name"], arguments, _JSON_REMINDER)

    def _written(self, name: str, arguments: Mapping[str, str]) -> str:
        call = json.dumps({"name": name, "arguments": dict(arguments)})
        return f"{OPEN}\n{call}\n{CLOSE}"

    def answer(self, observation: str) -> str:
        # What a command printed must not end its own frame: these are single tokens for a model.
        inside = re.sub(r"<(/?tool_response)>", r"<\\\1>", observation)
        return f"<tool_response>\n{inside}\n</tool_response>"


@dataclass(frozen=True, slots=True)
class TagCalls(_Calls):
    """`<function=NAME><parameter=KEY>VALUE</parameter></function>`: OpenHands without native calls,
    SWE-smith's and SWE-Gym's agents, and in its own tags Qwen3-Coder."""

    name: str = "function"

    @property
    def declaration(self) -> str:
        lines = ["You have these functions:"]
        for number, tool in enumerate(OPENHANDS_TOOLS, 1):
            lines += ["", f"---- {number}. {tool.name}", tool.description, "Parameters:"]
            for each in tool.parameters:
                need = "required" if each.required else "optional"
                choices = f" One of {', '.join(each.choices)}." if each.choices else ""
                lines.append(f"  {each.name} ({each.kind}, {need}): {each.description}{choices}")
        return "\n".join([*lines, "", _TAG_REMINDER])

    def read(self, text: str, *, truncated: bool = False) -> str:
        said = after_thinking(text)
        calls = tag_calls(said)
        if len(calls) != 1:
            raise _refusal(f"found {len(calls) or 'none'}", _TAG_REMINDER, truncated)
        (call,) = calls
        if not said[slice(*call.span)].endswith(_FUNCTION_END):
            raise _refusal(f"it does not end with {_FUNCTION_END}", _TAG_REMINDER, truncated)
        for name, (_, stop) in call.spans.items():
            if not said.startswith(_PARAMETER_END, stop):
                raise _refusal(
                    f"parameter {name} does not end with {_PARAMETER_END}", _TAG_REMINDER
                )
        return _command(call.name, call.arguments, _TAG_REMINDER)

    def _written(self, name: str, arguments: Mapping[str, str]) -> str:
        return written_call(name, dict(arguments))

    def answer(self, observation: str) -> str:
        return f"OBSERVATION:\n{observation}"


_JSON_REMINDER = (
    "End your reply with exactly one call:\n"
    f'{OPEN}\n{{"name": "execute_bash", "arguments": {{"command": "ls"}}}}\n{CLOSE}'
)
_TAG_REMINDER = (
    "End your reply with exactly one call:\n"
    f"{_FUNCTION}execute_bash>\n<parameter=command>ls{_PARAMETER_END}\n{_FUNCTION_END}"
)


def _command(name: str, arguments: Mapping[str, Any], reminder: str) -> str:
    try:
        command = checked(name, arguments).command
    except FormatError as error:
        raise FormatError(f"Nothing was run: {error}. {reminder}") from error
    if not command.strip():
        raise FormatError(f"Nothing was run: the command of {name} is empty. {reminder}")
    return command


def _refusal(what: str, reminder: str, truncated: bool = False) -> FormatError:
    cut = "; the reply was cut at its token limit" if truncated else ""
    return FormatError(f"Nothing was run: expected 1 function call, {what}{cut}. {reminder}")
