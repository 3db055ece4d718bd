"""Make the patch unreadable in a run, and prove that it is.

Three passes over each message. The text of edits goes (edits.py, tool_edits.py), whole diffs go,
and then every place where an added line of the run's own patches can still be read: an editor's
echo, a later view of the edited file, a closing summary, there also when it quotes a piece of the
line. Lines that a patch puts into another order were there before, so they stay until the first
edit and go from what is observed after it. Views, test output, errors and reasoning stay.

What this cannot see: a fix told in words, or a piece of a line outside inline code. Lines under
`normal.MIN_DISTINCTIVE` characters (`else:`, `pass`, `i += 1`) are only looked for in a patch that
adds nothing longer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from contextrl.agents.types import Message
from contextrl.pairs.diffs import PatchLines, patch_lines, touched_files
from contextrl.pairs.errors import LeakError, PatchError
from contextrl.pairs.normal import (
    NormalText,
    Span,
    is_distinctive,
    line_forms,
    merge,
    normal,
    replace,
)
from contextrl.pairs.shown_diffs import diff_spans
from contextrl.pairs.tool_edits import reply_edit_spans

MASK = "<PATCH_MASKED>"

MAX_ADDED_LINES = 2000
"""Each is searched for in every message: this bounds the work per character of text."""

MIN_FRAGMENT = 10
"""Characters of normal form; a shorter quote (`x is None`) may be anybody's."""

_INLINE_CODE = re.compile(r"(?<!`)`([^`\n]{1,400})`(?!`)")
_NAME = re.compile(r"\w+")
_OPEN_FILE = re.compile(r"^\(Open file: (.+?)\)\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _AddedLine:
    text: str
    form: str
    hosts: tuple[str, ...]
    """Removed or context lines, in normal form, that contain it.

    Where one of them stands, the added line gives nothing away.
    """


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The added lines by which a patch is known."""

    lines: tuple[_AddedLine, ...]
    kept: frozenset[str] = frozenset()
    """Normal forms of the lines that the patch removes or leaves."""
    moved: frozenset[str] = frozenset()
    """Normal forms of the lines that it removes and adds in another order."""


@dataclass(frozen=True, slots=True)
class MaskedRun:
    messages: tuple[Message, ...]
    masks: int
    """Places that were replaced."""
    first_edit: int
    """Index of the first reply with an edit command; `len(messages)` when none was seen."""

    @property
    def observed_before_editing(self) -> str:
        """The world as the run found it."""
        return _observed(self.messages[: self.first_edit])

    @property
    def observed(self) -> str:
        return _observed(self.messages)


def fingerprint(*patches: str) -> Fingerprint:
    """Distinctive added lines that the patch did not merely move.

    Raises:
        PatchError: a patch does not parse or adds too many lines.
    """
    added: dict[str, str] = {}
    kept: set[str] = set()
    moved: set[str] = set()
    for patch in patches:
        lines = patch_lines(patch)
        moved |= _moved(lines)
        added.update((normal(line), line) for line in lines.added)
        kept.update(map(normal, (*lines.removed, *lines.context)))
    for form in ("", *kept):
        added.pop(form, None)
    if len(added) > MAX_ADDED_LINES:
        raise PatchError(f"expected at most {MAX_ADDED_LINES} added lines, found {len(added)}")
    telling = {form: line for form, line in added.items() if is_distinctive(line)} or added
    everything = "\n".join(kept)
    return Fingerprint(
        tuple(
            _AddedLine(
                line,
                form,
                tuple(host for host in kept if form in host) if form in everything else (),
            )
            for form, line in telling.items()
        ),
        frozenset(kept),
        frozenset(moved),
    )


def readable(mark: Fingerprint, text: NormalText) -> list[Span]:
    """Where an added line stands in `text` outside the lines that were there before the patch."""
    spans: list[Span] = []
    for line in mark.lines:
        hits = list(text.find(line.form))
        if hits and line.hosts:
            hosts = merge(span for host in line.hosts for span in text.find(host))
            hits = _outside(hits, hosts)
        spans += hits
    return spans


def mask_run(messages: Sequence[Message], patches: Iterable[str]) -> MaskedRun:
    """The run with the text of `patches` (its submission, its reference fix) replaced by `MASK`.

    Raises:
        PatchError: a patch does not parse.
    """
    patches = [patch for patch in patches if patch.strip()]
    mark = fingerprint(*patches)
    files = sorted({file for patch in patches for file in touched_files(patch)})
    masked, count, first_edit = [], 0, len(messages)
    open_file: str | None = None  # SWE-agent's line editor works on it
    for index, message in enumerate(messages):
        spans = readable(mark, NormalText(message.content))
        if message.role == "assistant":
            edits = reply_edit_spans(message.content, files, open_file)
            if edits:
                first_edit = min(first_edit, index)
            spans += edits + fragment_spans(mark, message.content)
        else:
            open_file = next((f[1] for f in _OPEN_FILE.finditer(message.content)), open_file)
            if index > first_edit and mark.moved:
                spans += line_spans(mark.moved, message.content)
        spans = _bridged(message.content, [*spans, *diff_spans(message.content)])
        count += len(spans)
        content = replace(message.content, spans, MASK) if spans else message.content
        masked.append(Message(role=message.role, content=content))
    return MaskedRun(tuple(masked), count, first_edit)


def leaked_line(mark: Fingerprint, text: NormalText, known: NormalText | None = None) -> str | None:
    """The first added line that can be read in `text` and does not stand in `known`."""
    for line in mark.lines:
        if readable(Fingerprint((line,)), text) and not (known and line.form in known):
            return line.text
    return None


def assert_no_leak(answer: str, messages: Sequence[Message], *, known: str = "") -> None:
    """No distinctive added line of the answer patch can be read in `messages`.

    `known` is text of the start state: a line that stands there was in the repository before any
    agent touched it. A confounding run of another bug in the same function shows such lines.

    Raises:
        LeakError: names the message and the line.
        PatchError: the answer does not parse.
    """
    mark = fingerprint(answer)
    start_state = NormalText(known)
    for index, message in enumerate(messages):
        line = leaked_line(mark, NormalText(message.content), start_state)
        if line is not None:
            raise LeakError(
                f"expected a masked context, found {line.strip()[:80]!r} of the answer in message "
                f"{index} ({message.role}); drop the pair"
            )


def fragment_spans(mark: Fingerprint, reply: str) -> list[Span]:
    """Inline code of a reply that is a piece of an added line and of no line that was there.

    Closing summaries quote the fix by less than a whole line: `x = max(a, b)` as `max(a, b)`.
    """
    spans = []
    for found in _INLINE_CODE.finditer(reply):
        form = normal(found[1])
        if len(form) < MIN_FRAGMENT or _NAME.fullmatch(form):
            continue  # a name alone is in the issue or in the code as often as not
        if any(
            form in line.form and not any(form in host for host in mark.kept) for line in mark.lines
        ):
            spans.append(found.span(1))
    return spans


def line_spans(forms: frozenset[str], text: str) -> list[Span]:
    """Whole lines of `text`, without number and indentation, whose normal form is in `forms`."""
    spans, at = [], 0
    for line in text.split("\n"):
        found = next((form for form in line_forms(line) if form in forms), None)
        if found is not None:
            spans += [(at + start, at + end) for start, end in NormalText(line).find(found)]
        at += len(line) + 1
    return spans


def _moved(lines: PatchLines) -> set[str]:
    """Of one patch. What goes and comes in its old order, as the last line of a file that had no
    line end, is not moved; of a patch that does nothing but move lines all are."""
    removed, added = (
        [form for form in map(normal, side) if form] for side in (lines.removed, lines.added)
    )
    both = {normal(line) for line in lines.added if is_distinctive(line)} & set(removed)
    if removed != added and sorted(removed) == sorted(added):
        return both
    before, after = ([form for form in side if form in both] for side in (removed, added))
    moved = Counter(before) & Counter(after)
    for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
        moved -= Counter(before[block.a : block.a + block.size])
    return set(moved)


def _bridged(text: str, spans: Iterable[Span]) -> list[Span]:
    """Merged; neighbours with only white space between them become one, ends are tightened."""
    joined: list[Span] = []
    for start, end in merge(spans):
        while end > start and text[end - 1] in "\r\n":
            end -= 1
        if joined and not text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        elif end > start:
            joined.append((start, end))
    return joined


def _outside(spans: list[Span], hosts: list[Span]) -> list[Span]:
    """Spans that lie inside no host. Both sorted; hosts merged."""
    found, at = [], 0
    for start, end in spans:
        while at < len(hosts) and hosts[at][1] < end:
            at += 1
        if at == len(hosts) or not hosts[at][0] <= start:
            found.append((start, end))
    return found


def _observed(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages if message.role != "assistant")
