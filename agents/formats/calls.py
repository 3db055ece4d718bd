"""Tool calls in the text of a reply, and the one shell command that a reply stands for.

Calls that a row keeps as JSON are written into the text in the form in which SWE-smith publishes
them, so that everything later reads one form:

    <function=str_replace_editor>
    <parameter=path>/testbed/a.py</parameter>
    </function>

Calls that a model wrote as JSON between tags (`json_calls`) are read as they stand.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextrl.agents.errors import ForeignRowError
from contextrl.agents.formats.json_calls import json_calls

Span = tuple[int, int]

SHELLS = frozenset({"bash", "execute_bash", "shell", "terminal", "execute_ipython_cell"})
_CALL = re.compile(r"<function=([\w.-]+)>")
_END = "</function>"
_PARAMETER = re.compile(r"<parameter=([\w.-]+)>")
_PARAMETER_END = "</parameter>"
_FENCE = re.compile(r"^```([\w+-]*)[ \t]*\r?$", re.MULTILINE)
_SHELL_BLOCK = re.compile(
    r"^```(?:bash|sh|shell|mswea_bash_command)[ \t]*\r?\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call and where it stands in its text."""

    name: str
    arguments: Mapping[str, str]
    span: Span
    spans: Mapping[str, Span] = field(default_factory=dict)
    """Where each argument's value stands."""

    @property
    def command(self) -> str:
        """As a shell would run it: SWE-agent installs its tools as commands of these names."""
        if self.name in SHELLS:
            return self.arguments.get("command", self.arguments.get("code", ""))
        rest = dict(self.arguments)
        words = [self.name, *(rest.pop(key) for key in ("command", "path") if key in rest)]
        for key, value in rest.items():
            words += [f"--{key}", *(value.strip("[]").split(", ") if key == _RANGE else [value])]
        return shlex.join(words)


_RANGE = "view_range"


def tool_calls(text: str) -> list[ToolCall]:
    """Every call in order, in either form. A tag that never closes ends with the text."""
    calls = tag_calls(text)
    for name, values, whole, spans in json_calls(text):
        calls.append(ToolCall(name, _words(values), whole, spans))
    return sorted(calls, key=lambda call: call.span)


def tag_calls(text: str) -> list[ToolCall]:
    """The calls in tags alone."""
    calls = []
    for found, limit in _until_next(_CALL, text, 0, len(text)):
        end = text.rfind(_END, found.end(), limit)
        stop = end if end >= 0 else limit
        arguments, spans = {}, {}
        for parameter, last in _until_next(_PARAMETER, text, found.end(), stop):
            close = text.rfind(_PARAMETER_END, parameter.end(), last)
            span = (parameter.end(), close if close >= 0 else last)
            arguments[parameter[1]] = text[slice(*span)].strip("\n")
            spans[parameter[1]] = span
        whole = (found.start(), min(stop + len(_END), len(text)) if end >= 0 else stop)
        calls.append(ToolCall(found[1], arguments, whole, spans))
    return calls


def command_of(text: str) -> str | None:
    """The reply's command: its first call, else its last shell block, else its last bare block."""
    calls = tool_calls(text)
    if calls:
        return calls[0].command
    found = _SHELL_BLOCK.findall(text) or [body for label, body in _blocks(text) if not label]
    return found[-1].strip("\n") if found else None


def written_call(name: str, arguments: object) -> str:
    """A JSON call in the text form above. Raises `ForeignRowError` if the arguments are no object.

    Arguments that do not parse, as models sometimes write them, are kept as one `raw` argument.
    """
    if isinstance(arguments, str):
        try:
            parsed: Any = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            parsed = {"raw": arguments}
    else:
        parsed = arguments or {}
    if not isinstance(parsed, dict):
        raise ForeignRowError(
            f"expected an object as arguments of {name}, found {type(parsed).__name__}"
        )
    lines = [f"<function={name}>"]
    for key, shown in _words(parsed).items():
        lines.append(f"<parameter={key}>{shown}</parameter>")
    return "\n".join([*lines, _END])


def _words(arguments: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in arguments.items()
    }


def _until_next(
    pattern: re.Pattern[str], text: str, start: int, stop: int
) -> Iterator[tuple[re.Match[str], int]]:
    """Each match with where the next one, or the text, begins."""
    matches = list(pattern.finditer(text, start, stop))
    ends = [*(each.start() for each in matches[1:]), stop]
    return zip(matches, ends, strict=False)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(label, body) of fenced blocks; one that never closes ends with the text."""
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        closing = text.find("\n```", opening.end())
        stop = closing if closing >= 0 else len(text)
        yield opening[1], text[min(opening.end() + 1, stop) : stop]
        at = stop + 4 if closing >= 0 else len(text)
