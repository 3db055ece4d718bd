"""One normal form of code text, and where a line can be read under it.

Whitespace, quotes, backslashes, escaped newlines and terminal colours are ignored, so that a line
is found inside a numbered view, a diff, a shell string, a heredoc or a one-liner alike.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate

MIN_DISTINCTIVE = 6
"""Characters of normal form. Shorter lines (`else:`, `pass`) say nothing about a patch."""
MAX_LINE = 240
"""Of a longer line its first characters are looked for: enough to know it, and linear to find."""

MAX_REMEMBERED = 300
"""Characters of a line whose form is kept: runs show the same lines again and again."""
REMEMBERED = 1 << 13
"""Lines whose forms are kept: of the functions at hand. More would grow with the corpus."""

Span = tuple[int, int]
"""Half-open range of characters."""

# Every alternative consumes its whole run, so the scan never goes back over a character.
_IGNORED = re.compile(r"\\+[nrt]?|[\s'\"`]+|\x1b\[[0-9;]*[A-Za-z]?")
_VIEW_PREFIX = re.compile(r"^(?:[\w./-]+[:-])?\d+[:=|-]?")
_WORD = re.compile(r"\w")


def normal(line: str) -> str:
    return _short(line) if len(line) <= MAX_REMEMBERED else _IGNORED.sub("", line)


@lru_cache(maxsize=REMEMBERED)
def _short(line: str) -> str:
    return _IGNORED.sub("", line)


def line_forms(line: str) -> tuple[str, str]:
    """Normal form of a line as it stands, and without the `file:12:` or `12` of a view."""
    if len(line) <= MAX_REMEMBERED:
        return _short_forms(line)
    form = _IGNORED.sub("", line)
    return form, _VIEW_PREFIX.sub("", form, count=1)


@lru_cache(maxsize=REMEMBERED)
def _short_forms(line: str) -> tuple[str, str]:
    form = _IGNORED.sub("", line)
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
        # Nothing that is ignored depends on what stands across a line's end, so that the form of a
        # text is that of its lines: most of them are known from the message before.
        self.form = "".join(map(normal, text.split("\n")))
        self._starts: tuple[list[int], list[int]] | None = None
        """Where each line begins, in the text and in its form."""
        self._kept: dict[int, tuple[array[int], array[int]]] = {}
        """By line: where each piece that is kept begins, in the form and in the text."""

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
        """Where a character of the form stands in the text."""
        if self._starts is None:
            lines = self.text.split("\n")
            self._starts = (
                list(accumulate((len(line) + 1 for line in lines), initial=0)),
                list(accumulate((len(normal(line)) for line in lines), initial=0)),
            )
        in_text, in_form = self._starts
        number = bisect_right(in_form, at) - 1
        if number not in self._kept:  # one pass over a line, however often it is asked about
            start, form = in_text[number], in_form[number]
            forms, texts = array("L", [form]), array("L", [start])
            for ignored in _IGNORED.finditer(self.text, start, in_text[number + 1] - 1):
                form += ignored.start() - texts[-1]
                forms.append(form)
                texts.append(ignored.end())
            self._kept[number] = forms, texts
        forms, texts = self._kept[number]
        piece = bisect_right(forms, at) - 1
        return texts[piece] + at - forms[piece]


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
