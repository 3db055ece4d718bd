"""Numbers as people and models write them, with or without a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from contextrl.verl_ext.units import ONE, Unit, read_unit

TOLERANCE = Fraction(1, 1_000_000)
"""Relative."""
NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<currency>[$\u20ac\u00a3\u00a5]?)\s*"
    r"(?:(?P<mixed>\d+)\s+(?=\d+\s*/\s*\d))?"
    r"(?P<whole>\d{1,3}(?:[, ]\d{3})+(?![\d/])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:e(?P<power>[-+]?\d{1,3})(?!\d))?"
    r"(?:\s*/\s*(?P<below>\d+))?",
    re.IGNORECASE,
)
POWER_OF_TEN = re.compile(
    r"(?<=[\d.])\s*(?:\\times|\\cdot|[x*\u00d7\u00b7])\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|([-+]?\d{1,3}))"
)
FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
LEAD = re.compile(
    r"^[^=<>\d]{1,60}?(?:\bis\b|\bare\b|\bequals?\b|=|:|\\approx|\u2248)\s*(?=[-+.\d\\$\u20ac\u00a3~])",
    re.IGNORECASE,
)
ABOUT = re.compile(
    r"^(?:about|around|approximately|approx\.?|roughly|nearly|almost|circa|=|~|\\approx|\\sim|\u2248)\s*",
    re.IGNORECASE,
)
MULTIPLES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UP_TO_TWELVE = "zero one two three four five six seven eight nine ten eleven twelve"
_TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {word: n for n, word in enumerate((_UP_TO_TWELVE + " " + _TEENS).split())}
WORDS |= {word: 10 * n for n, word in enumerate(_TENS.split(), start=2)}
LETTER_UNITS = frozenset("msghAKNJWCVFTHL\u03a9%\u00b0$\u20ac\u00a3\u00a5")
"""Other single letters after a number are variables: `3x` is not `3`."""


@dataclass(frozen=True, slots=True)
class Quantity:
    value: Fraction
    unit: Unit | None
    """None when none was given."""
    last_place: Fraction | None
    """What the last decimal stands for, 0.01 in 3.14; None for integers and fractions."""


def quantity(text: str) -> Quantity | None:
    """A number with an optional unit, and nothing else; None for anything more."""
    text = ABOUT.sub("", LEAD.sub("", text.strip())).strip()
    text = POWER_OF_TEN.sub(lambda found: f"e{found[1] or found[2]}", text)
    text = FRACTION.sub(r"\1/\2", re.sub(r"(?<=\d)\s*(?=\\[dt]?frac)", " ", text))
    match = NUMBER.match(text)
    if match is None:
        return _spelled(text)
    value = Fraction(re.sub("[, ]", "", match["whole"]).rstrip(".") or "0")
    decimals = len(match["whole"].partition(".")[2])
    power = Fraction(10) ** int(match["power"] or 0)
    value *= power
    if match["below"]:
        if int(match["below"]) == 0:
            return None
        value = value / int(match["below"]) + int(match["mixed"] or 0)
    elif match["mixed"]:
        return None
    last_place = power / 10**decimals if decimals and not match["below"] else None
    value = -value if match["sign"] == "-" else value
    return _with_unit(value, last_place, match["currency"], text[match.end() :])


def same_quantity(given: Quantity, expected: Quantity) -> bool:
    """A missing unit fits any; 50% is 50 with the sign left out, and 0.5; 100 cm is 1 m.

    Where `expected` is a decimal, a `given` that is more exact and rounds to it is the same.
    """
    left, right = given.unit or ONE, expected.unit or ONE
    if given.unit and expected.unit:
        if left.powers != right.powers:
            return False
        if left.scale != right.scale:
            return _close(given.value * left.scale, expected.value * right.scale)
    values = {given.value}
    if not expected.unit and left.powers == (("%", 1),):
        values.add(given.value / 100)
    if not given.unit and right.powers == (("%", 1),):
        values.add(given.value * 100)
    return any(_close(value, expected.value) for value in values) or _rounds_to(given, expected)


def _close(left: Fraction, right: Fraction) -> bool:
    return abs(left - right) <= TOLERANCE * max(abs(left), abs(right))


def _rounds_to(given: Quantity, expected: Quantity) -> bool:
    place = expected.last_place
    if place is None or (given.last_place is None and given.value.denominator == 1):
        return False
    if given.last_place is not None and given.last_place >= place:
        return False
    return abs(given.value - expected.value) <= place / 2


def _with_unit(
    value: Fraction, last_place: Fraction | None, currency: str, rest: str
) -> Quantity | None:
    spaced, rest = rest[:1].isspace(), rest.strip()
    first, _, others = rest.partition(" ")
    times = MULTIPLES.get(first.lower())
    if times is not None:
        value, rest = value * times, others.strip()
        last_place = last_place * times if last_place is not None else None
    rest = f"{currency} {rest}".strip()
    if not rest:
        return Quantity(value, None, last_place)
    if (
        len(rest) > 40
        or len(rest.split()) > 4
        or not re.match(r"[^\W\d_]|[$\u20ac\u00a3\u00a5\u00b0%/\\]", rest)
    ):
        return None
    unit = read_unit(rest.replace("\\Omega", "\u03a9"))
    if unit is None or "\\" in rest.replace("\\Omega", "") or re.search(r"[=<>+,;:!?|]", rest):
        return None
    symbol = re.match(r"[^\W\d_]+|.", rest)
    assert symbol is not None
    if not unit.known and (not spaced or (len(symbol[0]) == 1 and symbol[0] not in LETTER_UNITS)):
        return None
    return Quantity(value, unit, last_place)


def _spelled(text: str) -> Quantity | None:
    """`three`, `twenty-one`, `two apples`."""
    first, _, rest = text.lower().replace("-", " ").partition(" ")
    if first not in WORDS:
        return None
    value = WORDS[first]
    second, _, further = rest.partition(" ")
    if value >= 20 and 0 < WORDS.get(second, 0) < 10:
        value, rest = value + WORDS[second], further
    return _with_unit(Fraction(value), None, "", f" {rest}")
