"""A reply to exactly one command, or a `FormatError` whose text tells the model what to do.

A command is the body of a block that opens with ```` ```bash ```` (or `sh`, `shell`) and closes
with a bare fence, both at the start of a line. The rules where models differ:

- Anything up to the first `</think>` is thinking and holds no command.
- Blocks without a label or in another language are illustration, not commands.
- Labelled fences inside a bash block nest (a heredoc that writes Markdown); a bare one closes it.
- None, several, empty, or a block that never closes: an error. Half a heredoc is never run.
- A reply cut at its token limit is read like any other: its block may have closed before the cut.
"""

from __future__ import annotations

import re

from contextrl.agents.errors import FormatError

_FENCE = re.compile(r"```([\w+-]*)[ \t]*\r?")
_SHELLS = frozenset({"bash", "sh", "shell"})
_REMINDER = "Reply with exactly one command in one block:\n```bash\nyour command\n```"


def parse_command(text: str, *, truncated: bool = False) -> str:
    """The one command in `text`, without surrounding blank lines. Raises `FormatError`."""
    blocks, unclosed = _bash_blocks(after_thinking(text))
    if unclosed or (truncated and not blocks):
        cut = " because the reply was cut at its token limit" if truncated else ""
        raise FormatError(f"No command was run: no closed ```bash block{cut}. {_REMINDER}")
    if len(blocks) != 1:
        found = len(blocks) or "none"
        raise FormatError(
            f"No command was run: expected 1 ```bash block, found {found}. {_REMINDER}"
        )
    command = blocks[0].strip()
    if not command:
        raise FormatError(f"No command was run: the ```bash block is empty. {_REMINDER}")
    if "\0" in command:
        raise FormatError(f"No command was run: it holds a NUL byte. {_REMINDER}")
    return command


def after_thinking(text: str) -> str:
    """The reply without its thinking; empty where that never ends."""
    before, marker, after = text.partition("</think>")
    if marker:
        return after
    return "" if before.lstrip().startswith("<think>") else before


def _bash_blocks(text: str) -> tuple[list[str], bool]:
    """Bodies of the closed bash blocks, and whether one is left open at the end."""
    blocks: list[str] = []
    body: list[str] | None = None  # of the bash block we are in
    depth = 0  # labelled fences opened inside it
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        label = fence.group(1).lower() if fence else ""
        if body is None:
            if label in _SHELLS:
                body, depth = [], 0
        elif fence and not label and depth == 0:
            blocks.append("\n".join(body))
            body = None
        else:
            depth += 0 if fence is None else (1 if label else -1)
            body.append(line)
    return blocks, body is not None
