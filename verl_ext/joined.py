"""Numbers joined by a sign that is no arithmetic: times of day, ranges, scores, dates, sizes.

A computer algebra system takes the range 10-15 for -5, and so for 20-25.
"""

from __future__ import annotations

import re
from fractions import Fraction

from contextrl.verl_ext.quantities import Quantity, quantity, same_quantity

_TIME = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?(?:\s*o'clock)?", re.IGNORECASE
)
_NUMBER = r"[$\u20ac\u00a3]?\s*\d+(?:[.,]\d+)*"
_RANGE = re.compile(
    rf"(?:from\s+|between\s+)?(?P<low>{_NUMBER})\s*(?P<unit>[^\d\s^-][^\d^-]*?)?\s*"
    rf"(?:-|\bto\b|\band\b)\s*(?P<high>{_NUMBER}[^\d-]*)",
    re.IGNORECASE,
)
_ROWS = {
    "-": re.compile(r"\d+(?:\s*-\s*\d+){2,}"),
    "/": re.compile(r"\d+(?:\s*/\s*\d+){2,}"),
    ":": re.compile(r"\d+(?:\s*:\s*\d+){2,}"),
    "x": re.compile(r"\d+(?:\s*(?:x|\u00d7|\\times|by)\s*\d+)+", re.IGNORECASE),
}


def same_time(given: str, expected: str) -> bool | None:
    """None unless both are times. Half of the day and seconds count where both tell them."""
    clock, other_clock = _clock(given), _clock(expected)
    if clock is None or other_clock is None:
        return None
    (hour, *rest, half), (other, *others, other_half) = clock, other_clock
    if half and other_half:
        return (hour % 12, *rest, half) == (other % 12, *others, other_half)
    if half or other_half:  # 14:05 is 2:05 pm, and 2:05 may be
        late = 12 * ((half or other_half) == "p")
        bare, named = (other, hour) if half else (hour, other)
        return rest == others and bare in (named, named % 12 + late)
    return (hour, *rest) == (other, *others)


def same_row(given: str, expected: str) -> bool | None:
    """None unless `expected` is a row of numbers, or `given` is a range and nothing else."""
    for sign, pattern in _ROWS.items():
        if pattern.fullmatch(expected):
            numbers = [_numbers(text) for text in (given, expected) if pattern.fullmatch(text)]
            if len(numbers) < 2 or len(numbers[0]) != len(numbers[1]):
                return False
            if sign == ":" and numbers[0][0] and numbers[1][0]:
                numbers = [[n / row[0] for n in row] for row in numbers]
            return numbers[0] == numbers[1]
    wanted, found = _range(expected), _range(given)
    if wanted is not None:
        return found is not None and all(map(same_quantity, found, wanted))
    return False if found is not None and found[0].value < found[1].value else None


def _clock(text: str) -> tuple[int, str, str, str] | None:
    found = _TIME.fullmatch(text.strip())
    if found is None or not (found[2] or found[4] or text.endswith("o'clock")):
        return None
    return int(found[1]), found[2] or "00", found[3] or "00", (found[4] or "").lower()


def _range(text: str) -> tuple[Quantity, Quantity] | None:
    """The two ends of `15-20 cm`; a score such as `3-1` reads the same."""
    found = _RANGE.fullmatch(text.strip())
    if found is None or (" and " in text and not text.lower().startswith("between")):
        return None
    high = quantity(found["high"])
    low = quantity(f"{found['low']} {found['unit'] or ''}")
    if low is None or high is None:
        return None
    return (low if low.unit else Quantity(low.value, high.unit, low.last_place)), high


def _numbers(text: str) -> list[Fraction]:
    return [Fraction(digits) for digits in re.findall(r"\d+", text)]
