"""A unified diff -> the lines it changes and the functions or classes it touches.

Patches are hostile input: whatever the text, the result is a record or a `PatchError`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath

from unidiff.patch import Hunk, Line, PatchSet

from contextrl.envs.definitions import definitions
from contextrl.pairs.errors import PatchError

MAX_PATCH_BYTES = 200_000
"""Longer ones are generated files or attacks; every later step is linear in this."""
MAX_SOURCE_BYTES = 2_000_000

ReadSource = Callable[[str], str | None]
"""Path inside the repository -> its text before or after the patch; None when it is not at hand."""

_DEFINITION = re.compile(r"([ \t]*)(?:async[ \t]+def|def|class)[ \t]+(\w+)")
_VIEW_PREFIX = re.compile(r"^ *\d+[:\t|-]")
_NO_BODY_END = "#)]}\\"
"""A comment or the closing bracket of a signature stands left of a body that it does not end."""
_MAX_MATCHES = 8
_DEV_NULL = "/dev/null"


class FunctionSource(StrEnum):
    """How a region's name was found, best first. Names from different sources may not agree."""

    SYNTAX_TREE = "syntax-tree"
    HUNK = "hunk"
    """A definition stands in the hunk itself, above the change."""
    HUNK_HEADER = "hunk-header"
    """git's `@@ ... @@ def f(` context."""
    VIEW = "view"
    """A definition stands above the changed line where a run looked at it."""
    UNKNOWN = "unknown"
    """Module level, or no definition in sight. `function` is empty."""


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A function or class that a patch changes."""

    file: str
    function: str
    """Qualified as far as its source shows: `Class.method`."""
    source: FunctionSource


@dataclass(frozen=True, slots=True)
class PatchLines:
    """The text of a patch's lines by their role, without prefixes or line ends, in order."""

    removed: tuple[str, ...]
    added: tuple[str, ...]
    context: tuple[str, ...]


def parse(patch: str) -> PatchSet:
    """The files of `patch`, every path relative and inside the repository.

    Raises:
        PatchError: not a unified diff, without a change, too long, or it leaves the repository.
    """
    size = len(patch.encode("utf-8", "replace"))
    if size > MAX_PATCH_BYTES:
        raise PatchError(f"expected a patch of at most {MAX_PATCH_BYTES} bytes, found {size}")
    try:
        files = PatchSet(patch)
        for file in files:
            _check_path(file.path)
    except PatchError:
        raise
    # unidiff raises its own error for most malformed input and bare ones for the rest.
    except Exception as error:
        raise PatchError(f"expected a unified diff, found one that does not parse: {error}") from (
            error
        )
    if not any(hunk.added or hunk.removed for file in files for hunk in file):
        raise PatchError("expected a unified diff, found no changed line")
    return files


@lru_cache(maxsize=512)
def patch_lines(patch: str) -> PatchLines:
    """Removed, added and context lines of the whole patch. Raises `PatchError`."""
    removed, added, context = [], [], []
    for file in parse(patch):
        for hunk in file:
            for line in hunk:
                text = line.value.rstrip("\r\n")
                if line.is_removed:
                    removed.append(text)
                elif line.is_added:
                    added.append(text)
                elif line.is_context:
                    context.append(text)
    return PatchLines(tuple(removed), tuple(added), tuple(context))


def touched_files(patch: str) -> tuple[str, ...]:
    """Paths inside the repository, sorted. Raises `PatchError`."""
    return tuple(sorted({file.path for file in parse(patch)}))


def touched_regions(
    patch: str, read_source: ReadSource | None = None, views: Sequence[str] = ()
) -> tuple[Region, ...]:
    """The functions and classes the patch changes, sorted, one record each.

    A function is named by the syntax tree when `read_source` has the file and the file agrees
    with the hunk (before or after it); otherwise by the hunk's own lines, then by its header, then
    by what stands above the change in `views`, texts in which somebody looked at the code.

    Raises:
        PatchError: see `parse`.
    """
    regions = set()
    for file in parse(patch):
        source = read_source(file.path) if read_source is not None else None
        names = _syntax_tree_names(source) if source is not None else None
        for hunk in file:
            found = _by_syntax_tree(hunk, source, names) if source and names is not None else None
            found = found or _by_hunk(hunk) or _by_views(hunk, views)
            for function, how in found or {("", FunctionSource.UNKNOWN)}:
                regions.add(Region(file.path, function, how))
    return tuple(sorted(regions))


Named = tuple[str, FunctionSource]


def _by_syntax_tree(hunk: Hunk, source: str, names: Callable[[int], str]) -> set[Named] | None:
    """None when the source at hand is neither side of this hunk."""
    lines = source.split("\n")
    for before in (True, False):
        start = hunk.source_start if before else hunk.target_start
        expected = [line.value.rstrip("\r\n") for line in hunk if _is_on_side(line, before)]
        at = max(start - 1, 0)
        if [line.rstrip("\r") for line in lines[at : at + len(expected)]] != expected:
            continue
        return {(name, _source_of(name)) for name in map(names, _changed_at(hunk, before, start))}
    return None


def _source_of(name: str) -> FunctionSource:
    return FunctionSource.SYNTAX_TREE if name else FunctionSource.UNKNOWN


def _changed_at(hunk: Hunk, before: bool, start: int) -> Iterator[int]:
    """Line numbers, on one side of the hunk, of its changed lines.

    A change that leaves no line on this side stands at the line above it.
    """
    number = start - 1
    for line in hunk:
        number += _is_on_side(line, before)
        if line.is_removed or line.is_added:
            yield max(number, 1)


def _is_on_side(line: Line, before: bool) -> bool:
    return bool(line.is_context or (line.is_removed if before else line.is_added))


def _syntax_tree_names(source: str) -> Callable[[int], str] | None:
    """Line number -> qualified name of the innermost definition around it; None if unparsable."""
    if len(source) > MAX_SOURCE_BYTES:
        return None
    try:
        tree = ast.parse(source)
        spans = list(definitions(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

    def name_at(line: int) -> str:
        around = [(first, name) for first, last, name in spans if first <= line <= last]
        return max(around)[1] if around else ""

    return name_at


def _by_hunk(hunk: Hunk) -> set[Named]:
    """Names by indentation: from each change upwards through the hunk, then to its header."""
    opened: list[tuple[int, str, FunctionSource]] = []
    header = _DEFINITION.match(hunk.section_header or "")
    if header is not None:
        opened.append((len(header[1]), header[2], FunctionSource.HUNK_HEADER))
    found: set[Named] = set()
    for line in hunk:
        text = line.value.strip()
        if not text or text[0] in _NO_BODY_END:
            continue
        indent = _indent(line.value)
        while opened and indent <= opened[-1][0]:
            opened.pop()
        definition = _DEFINITION.match(line.value)
        if definition is not None:
            opened.append((indent, definition[2], FunctionSource.HUNK))
        if line.is_removed or line.is_added:
            names = ".".join(name for _, name, _ in opened)
            if opened:
                found.add((names, opened[-1][2]))
    return found


def _by_views(hunk: Hunk, views: Sequence[str]) -> set[Named]:
    """By the first place where a view shows the line that goes, or the one above what comes."""
    lines = [line for line in hunk if line.value.strip()]
    at = next((i for i, line in enumerate(lines) if line.is_removed), None)
    if at is None:
        at = max(next((i for i, line in enumerate(lines) if line.is_added), 0) - 1, 0)
    if not lines:
        return set()
    wanted = lines[at].value.strip()
    for view in views:
        if wanted not in view:
            continue
        shown = [_VIEW_PREFIX.sub("", line, count=1) for line in view.split("\n")]
        matches = (number for number, line in enumerate(shown) if line.strip() == wanted)
        for number in islice(matches, _MAX_MATCHES):
            if name := _enclosing(shown, number):
                return {(name, FunctionSource.VIEW)}
    return set()


def _enclosing(lines: list[str], number: int) -> str:
    """Names of the definitions around a line, going up and out."""
    names: list[str] = []
    indent = _indent(lines[number])
    for line in reversed(lines[:number]):
        text = line.strip()
        if indent == 0:
            break
        if not text or text[0] in _NO_BODY_END or _indent(line) >= indent:
            continue
        indent = _indent(line)
        if (definition := _DEFINITION.match(line)) is not None:
            names.insert(0, definition[2])
    return ".".join(names)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _check_path(path: str) -> None:
    pure = PurePosixPath(path)
    if path == _DEV_NULL or not path or pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise PatchError(f"expected a path inside the repository, found {path!r}")
