"""The issue of a bug that nobody described: where it is, which test fails, and how."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from unidiff.patch import PatchSet

from contextrl.envs.definitions import definitions
from contextrl.envs.issue_text import issue_text
from contextrl.envs.mutants import Mutant

ReadSource = Callable[[str], str | None]
"""Path inside the repository -> its text before the bug; None when it is no text."""

MAX_NAMED = 3
"""Functions that an issue names; of more it names the files."""
MIN_TELLING = 8
"""Characters, blanks left out, from which on a line of the patch gives it away."""


def bug_issue(patch: str, test: str, crash: str, read_source: ReadSource) -> str:
    """In the words of `issue_text`: no changed line of `patch` can be read in it."""
    places = changed_functions(patch, read_source)
    named = list(dict.fromkeys(name for names in places.values() for name in names))
    files = " and ".join(places)
    if not named or len(named) > MAX_NAMED or not all(places.values()):
        named = ["something"]
    telling = [line for line in _changed_lines(patch) if len("".join(line.split())) >= MIN_TELLING]
    texts = [
        issue_text(
            Mutant(
                file=files, function=", ".join(named), operator="", line=1, before=line, after=line
            ),
            test,
            crash,
        )
        for line in telling or ["\0"]
    ]
    return min(texts, key=len)


def changed_functions(patch: str, read_source: ReadSource) -> dict[str, tuple[str, ...]]:
    """For each file of `patch`, qualified names of the functions and classes around its changes.

    Empty for a file that has none, is new, or does not parse.
    """
    found: dict[str, tuple[str, ...]] = {}
    for file in PatchSet(patch):
        source = read_source(file.path)
        names = list(_definitions(source)) if source else []
        lines = [
            line.source_line_no
            for hunk in file
            for line in hunk
            if line.is_removed and line.source_line_no
        ] or [hunk.source_start for hunk in file]
        around = (_innermost(names, number) for number in lines)
        found[file.path] = tuple(dict.fromkeys(filter(None, around)))
    return found


def _innermost(definitions: list[tuple[int, int, str]], line: int) -> str:
    around = [each for each in definitions if each[0] <= line <= each[1]]
    return max(around)[2] if around else ""


def _definitions(source: str) -> Iterator[tuple[int, int, str]]:
    """As `definitions`; none of a source that cannot be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    yield from definitions(tree)


def _changed_lines(patch: str) -> list[str]:
    return [
        line.value
        for file in PatchSet(patch)
        for hunk in file
        for line in hunk
        if line.is_added or line.is_removed
    ]
