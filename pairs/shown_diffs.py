"""Where a text shows a unified diff, coloured or cut short as a terminal may show it."""

from __future__ import annotations

import re

from contextrl.pairs.normal import Span

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]?")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_DIFF_HEADERS = (
    "diff --git ", "index ", "--- ", "+++ ", "new file mode", "deleted file mode", "old mode",
    "new mode", "similarity index", "rename ", "copy ", "Binary files ",
)  # fmt: skip
_DIFF_SIGNS = ("diff --git ", "--- a/", "+++ b/", "@@ -", "\x1b")
"""One of them is in every text with a diff; colours may stand inside of the others."""


def diff_spans(text: str) -> list[Span]:
    """Unified diffs in `text`, headers and hunks: their hashes and numbers name a patch as well."""
    if not any(sign in text for sign in _DIFF_SIGNS):
        return []
    spans: list[Span] = []
    at, left = 0, [0, 0]
    in_diff = False
    for raw in text.split("\n"):
        line = _COLOUR.sub("", raw)
        end = at + len(raw) + 1
        start = at
        hunk = _HUNK.match(line)
        if hunk is not None:
            left = [int(hunk[1] or 1), int(hunk[2] or 1)]
            in_diff = True
        elif max(left) > 0 and (not line or line[0] in " +-\\"):
            left[0] -= not line or line[0] in " -"
            left[1] -= not line or line[0] in " +"
        else:
            left = [0, 0]
            begins = line.find("diff --git ")
            if begins >= 0:
                in_diff, start = True, at + raw.find("diff --git ")
            else:
                in_diff = line.startswith(
                    (*_DIFF_HEADERS, "\\ No newline") if in_diff else ("--- a/", "+++ b/")
                )
        if in_diff:
            spans.append((start, min(end, len(text))))
        at = end
    return spans
