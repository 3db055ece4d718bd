"""One normal form of code text, and where a line can be read under it.

Whitespace, quotes, backslashes, escaped newlines and terminal colours are ignored, so that a line
is found inside a numbered view, a diff, a shell string, a heredoc or a one-liner alike.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator

MIN_DISTINCTIVE = 6
"""Characters of normal form. Shorter lines (`else:`, `pass`) say nothing about a patch."""
MAX_LINE = 240
"""Of a longer line its first characters are looked for: enough to know it, and linear to find."""

Span = tuple[int, int]
"""Half-open range of characters."""

# Every alternative consumes its whole run, so the scan never goes back over a character.
_IGNORED = re.compile(r"\\+[nrt]?|[\s'\"`]+|\x1b\[[0-9;]*[A-Za-z]?")
_VIEW_PREFIX = re.compile(r"^(?:[\w./-]+[:-])?\d+[:=|-]?")
_WORD = re.compile(r"\w")


def normal(line: str) -> str:
    return _IGNORED.sub("", line)


def line_forms(line: str) -> tuple[str, str]:
    """Normal form of a line as it stands, and without the `file:12:` or `12` of a view."""
    form = normal(line)
    return form, _VIEW_PREFIX.sub("", form, count=1)


def shown_lines(text: str) -> frozenset[str]:
    """Normal forms of the WHOLE lines a text shows."""
    return frozenset(form for line in text.split("\n") for form in line_forms(line) if form)


def is_distinctive(line: str) -> bool:
    """Long enough to point at one patch, and not punctuation or a comment rule alone."""
    form = normal(line)
    return len(form) >= MIN_DISTINCTIVE and sum(map(str.isalnum, form)) >= 3


class NormalText:
    """A text in normal form that still knows where each character came from."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.form = _IGNORED.sub("", text)
        self._offsets: array[int] | None = None

    def __contains__(self, whole: str) -> bool:
        return next(self.find(whole), None) is not None

    def find(self, whole: str) -> Iterator[Span]:
        """Where a line, given in normal form, stands: not overlapping, not inside a longer word."""
        needle = whole[:MAX_LINE]
        if not needle:
            return
        at = self.form.find(needle)
        while at >= 0:
            first, last = self._offset(at), self._offset(at + len(needle) - 1)
            if self._ends_a_word(first - 1, first) or (
                needle == whole and self._ends_a_word(last + 1, last)
            ):
                at = self.form.find(needle, at + 1)
                continue
            end = last + 1 if needle == whole else self._line_end(last)
            yield first, end
            at = self.form.find(needle, at + len(needle))

    def _ends_a_word(self, outside: int, inside: int) -> bool:
        """True when a word runs across the edge between these two neighbours."""
        if not 0 <= outside < len(self.text):
            return False
        if not (_WORD.match(self.text[outside]) and _WORD.match(self.text[inside])):
            return False
        # In `\nfoo` the n belongs to the escape, not to the word.
        escaped = outside < inside and outside > 0 and self.text[outside - 1] == "\\"
        return not (escaped and self.text[outside] in "nrt")

    def _line_end(self, start: int) -> int:
        end = self.text.find("\n", start)
        return len(self.text) if end < 0 else end

    def _offset(self, at: int) -> int:
        if self._offsets is None:
            self._offsets, seen = array("I"), 0
            for ignored in _IGNORED.finditer(self.text):
                self._offsets.extend(range(seen, ignored.start()))
                seen = ignored.end()
            self._offsets.extend(range(seen, len(self.text)))
        return self._offsets[at]


def merge(spans: Iterable[Span]) -> list[Span]:
    """Sorted, with overlapping and touching ones made one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged


def replace(text: str, spans: Iterable[Span], by: str) -> str:
    """`text` with every span replaced."""
    pieces, at = [], 0
    for start, end in merge(spans):
        pieces += [text[at:start], by]
        at = end
    return "".join([*pieces, text[at:]])
