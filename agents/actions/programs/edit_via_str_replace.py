"""Runs inside the sandbox: the edit command that runs of mini-swe-agent-plus use.

`edit_via_str_replace FILE -- OLD NEW` replaces OLD, which must stand in the file exactly once, and
prints the lines around the change as those runs show them. Syntax of Python 3.7, standard library.
"""

from __future__ import annotations

import os
import re
import sys

CONTEXT_LINES = 3
USAGE = 'usage: edit_via_str_replace FILE -- "$old" "$new"'


def main(words: list[str]) -> str:
    if "--" in words[:2]:
        words.remove("--")
    if len(words) != 3:
        raise ValueError(f"{USAGE}; found {len(words)} arguments")
    path, old, new = words
    if not os.path.isfile(path):
        raise ValueError(f"no such file: {path}")
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    if not old:
        raise ValueError("the text to replace is empty")
    if old not in text and "\r\n" in text:  # a heredoc has line feeds whatever the file has
        old, new = (re.sub(r"(?<!\r)\n", "\r\n", each) for each in (old, new))
    lines = [text.count("\n", 0, each.start()) + 1 for each in re.finditer(re.escape(old), text)]
    if not lines:
        raise ValueError(f"the text to replace was not found in {path}; nothing was changed")
    if len(lines) > 1:
        raise ValueError(
            f"the text to replace occurs {len(lines)} times in {path}, at lines "
            f"{', '.join(map(str, lines))}; nothing was changed: add lines around it"
        )
    text = text.replace(old, new, 1)
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    return "\n".join(
        [
            f"The file {os.path.relpath(path) if path[:1] != '/' else path} has been edited "
            "successfully.",
            *_around(text, lines[0], new.count("\n") + 1),
            "Review the changes and make sure they are as expected.",
        ]
    )


def _around(text: str, first: int, count: int) -> list[str]:
    lines = text.split("\n")
    start = max(1, first - CONTEXT_LINES)
    stop = min(len(lines), first + count - 1 + CONTEXT_LINES)
    return [f"{n} | {lines[n - 1]}".rstrip("\r") for n in range(start, stop + 1)]


if __name__ == "__main__":
    try:
        said, status = main(sys.argv[1:]), 0
    except (ValueError, OSError) as error:
        said, status = f"edit_via_str_replace: {error}", 1
    sys.stdout.buffer.write(said.encode("utf-8", "surrogateescape") + b"\n")
    sys.exit(status)
