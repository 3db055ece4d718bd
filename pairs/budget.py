"""Fit two contexts into a token budget by leaving lines out, the decisive ones never.

What both sides share goes first: it cannot tell them apart. Then what stands only on one side. In
both rounds the lines farthest from a decisive line go first, on both sides alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from contextrl.pairs.errors import PromptBudgetError
from contextrl.pairs.normal import line_forms, normal

CountTokens = Callable[[str], int]

KEEP_AROUND = 2
"""Lines kept on each side of a decisive line."""


@dataclass(frozen=True, slots=True)
class Block:
    """One message of a context, by lines."""

    header: str
    """Stands above the lines; empty for none."""
    lines: tuple[str, ...]
    decisive: tuple[bool, ...]

    @classmethod
    def of(cls, header: str, text: str, decisive: frozenset[str]) -> Block:
        wanted = set(map(normal, decisive)) - {""}
        lines = tuple(text.strip("\n").split("\n"))
        return cls(header, lines, tuple(not wanted.isdisjoint(line_forms(line)) for line in lines))


@dataclass(frozen=True, slots=True)
class _Line:
    side: int
    block: int
    number: int
    shared: bool
    distance: int
    """Lines to the nearest decisive one of its side; larger than the side when there is none."""


def trim(
    first: list[Block],
    second: list[Block],
    assemble: Callable[[list[str], list[str]], str],
    count_tokens: CountTokens,
    max_tokens: int,
) -> str:
    """The assembled prompt, of at most `max_tokens`.

    Raises:
        PromptBudgetError: what must stay is longer than that.
    """
    order = _candidates((first, second))

    def without(n_lines: int) -> tuple[str, int]:
        left_out = {(line.side, line.block, line.number) for line in order[:n_lines]}
        prompt = assemble(_kept(first, 0, left_out), _kept(second, 1, left_out))
        return prompt, count_tokens(prompt)

    prompt, tokens = without(0)
    if tokens <= max_tokens:
        return prompt
    prompt, tokens = without(len(order))
    if tokens > max_tokens:
        raise PromptBudgetError(
            f"expected at most {max_tokens} tokens, found {tokens} with only the decisive lines "
            "left; raise the budget or drop the pair"
        )
    # Bisection for the fewest lines: `too_few` of them do not fit, `enough` do.
    too_few, enough = 0, len(order)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        shorter, tokens = without(middle)
        if tokens <= max_tokens:
            enough, prompt = middle, shorter
        else:
            too_few = middle
    return prompt


def _candidates(sides: tuple[list[Block], list[Block]]) -> list[_Line]:
    """Lines that may go, the first to go first."""
    forms = [{normal(line) for block in side for line in block.lines} for side in sides]
    shared = forms[0] & forms[1]
    lines = []
    for number, side in enumerate(sides):
        for (block, at), distance in _distances(side).items():
            if distance > KEEP_AROUND:
                is_shared = normal(side[block].lines[at]) in shared
                lines.append(_Line(number, block, at, is_shared, distance))
    return sorted(lines, key=lambda line: (not line.shared, -line.distance, line.block))


def _distances(side: list[Block]) -> dict[tuple[int, int], int]:
    """How far each line of a context is from a decisive one, counted through the whole context."""
    places = [(block, at) for block, content in enumerate(side) for at in range(len(content.lines))]
    far = len(places) + KEEP_AROUND + 1
    distances = [far] * len(places)
    for sweep in (range(len(places)), reversed(range(len(places)))):
        since = far
        for index in sweep:
            block, at = places[index]
            since = 0 if side[block].decisive[at] else min(since + 1, far)
            distances[index] = min(distances[index], since)
    return dict(zip(places, distances, strict=True))


def whole(side: list[Block]) -> list[str]:
    return _kept(side, 0, set())


def _kept(side: list[Block], number: int, left_out: set[tuple[int, int, int]]) -> list[str]:
    """The lines to show; each run of missing ones is one note, a block with none left is gone."""
    shown: list[str] = []
    missing = 0
    for block, content in enumerate(side):
        header_due = True
        for at, line in enumerate(content.lines):
            if (number, block, at) in left_out:
                missing += 1
                continue
            if missing:
                shown.append(_note(missing))
                missing = 0
            if header_due:
                shown += [content.header] if content.header else []
                header_due = False
            shown.append(line)
    if missing:
        shown.append(_note(missing))
    return shown


def _note(missing: int) -> str:
    return f"[{missing} lines left out]"
