"""Where a tool call, or SWE-agent's line editor, carries the text of an edit.

Published runs edit by `str_replace_editor` calls in XML or JSON (SWE-smith, OpenHands, SWE-agent
1.x), by `apply_patch`, and by the older SWE-agent's `edit 5:9 ... end_of_edit` blocks. The
replaced text goes as well as the new one: it names the lines that the answer removes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from contextrl.agents.formats.calls import SHELLS, ToolCall, tool_calls
from contextrl.pairs.edits import command_spans, edit_spans
from contextrl.pairs.normal import Span

_EDITORS = frozenset(
    {"str_replace_editor", "str_replace_based_edit_tool", "edit_file", "edit", "insert", "create"}
)
_PATCHERS = frozenset({"apply_patch", "apply_diff"})
_LOCATIONS = frozenset({"command", "path", "file_path", "view_range", "insert_line"})
_LINE_EDIT = re.compile(
    r"^[ \t]*(?:edit[ \t]+\d+:\d+|insert[ \t]+\d+)[ \t]*\r?\n"
    r"(.*?)(?=^[ \t]*end_of_(?:edit|insert)|\Z)",
    re.MULTILINE | re.DOTALL,
)


def reply_edit_spans(reply: str, files: Sequence[str], open_file: str | None = None) -> list[Span]:
    """Every part of a reply that holds the text of an edit to one of `files`.

    `open_file` is what a line editor works on; None when the run has not said.
    """
    calls = tool_calls(reply)
    if calls:
        return [span for call in calls for span in _call_spans(call, reply, files)]
    spans: list[Span] = []
    if open_file is None or _is_one_of(open_file, files):
        spans = [found.span(1) for found in _LINE_EDIT.finditer(reply)]
    for start, end in command_spans(reply):
        spans += [
            (start + first, start + last) for first, last in edit_spans(reply[start:end], files)
        ]
    return spans


def _call_spans(call: ToolCall, reply: str, files: Sequence[str]) -> Iterator[Span]:
    if call.name in SHELLS:
        for key in ("command", "code"):
            if key in call.spans:
                start, end = call.spans[key]
                written = reply[start:end]
                if written.strip("\n") != call.arguments[key]:
                    # Escaped, as in JSON: places in the command are not places in the text.
                    if any(edit_spans(call.arguments[key], files)):
                        yield start, end
                    continue
                for first, last in edit_spans(written, files):
                    yield start + first, start + last
    elif call.name in _PATCHERS:
        yield from call.spans.values()
    elif call.name in _EDITORS and call.arguments.get("command") != "view":
        path = call.arguments.get("path") or call.arguments.get("file_path") or ""
        # A reproduction script that is created is evidence, unless it writes one of the files.
        if not path or _is_one_of(path, files):
            yield from (span for key, span in call.spans.items() if key not in _LOCATIONS)


def _is_one_of(path: str, files: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(file.rpartition("/")[2] == name for file in files)
