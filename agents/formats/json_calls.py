"""Tool calls that are JSON between tags, as Qwen and Hermes models write them.

<tool_call>
{"name": "str_replace_editor", "arguments": {"command": "view", "path": "/testbed/a.py"}}
</tool_call>
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
DECODER = json.JSONDecoder(strict=False)
"""Models write line breaks into strings as they are; what is meant is never in doubt."""
MAX_CALLS = 200
"""Of one text: a hostile one could make each begin a string that runs to its end."""
_SPACE = re.compile(r"\s*")
_MEMBER = re.compile(r'"((?:[^"\\]|\\.)*+)"\s*:\s*"((?:[^"\\]|\\.)*+)"', re.DOTALL)

Span = tuple[int, int]


def json_calls(text: str) -> Iterator[tuple[str, dict[str, Any], Span, dict[str, Span]]]:
    """Name, arguments, where the call stands, and where the text of each string argument does.

    A call that cannot be read is none.
    """
    at = 0
    for _ in range(MAX_CALLS):
        opening = text.find(OPEN, at)
        if opening < 0:
            return
        at = opening + len(OPEN)
        start = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        try:
            call, end = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        arguments = call.get("arguments") if isinstance(call, dict) else None
        if not isinstance(arguments, dict) or not isinstance(call.get("name"), str):
            continue
        spans = {}
        for member in _MEMBER.finditer(text, start, end):
            with contextlib.suppress(ValueError):  # began in the middle of something else
                key, value = (DECODER.decode(f'"{each}"') for each in member.groups())
                if arguments.get(key) == value:
                    spans[key] = member.span(2)
        close = text.find(CLOSE, end)
        at = close + len(CLOSE) if close >= 0 and not text[end:close].strip() else end
        yield call["name"], arguments, (opening, at), spans
