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
    r"(?P<times>(?<=[\d.])\s*(?:\\times|\\cdot|[x*\u00d7\u00b7])\s*|(?<![\w.)}^]))10"
    r"\s*\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|([-+]?\d{1,3}))"
)
FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
LEAD = re.compile(
    r"^(?!-)[^=<>\d]{1,60}?(?:\bis\b|\bare\b|\bequals?\b|(?<!!)=|:|\\approx|\u2248)\s*(?=[-+.\d\\$\u20ac\u00a3~])",
    re.IGNORECASE,
)
ABOUT = re.compile(
    r"^(?:about|around|approximately|approx\.?|roughly|nearly|almost|circa|=|~|\\approx|\\sim|\u2248)\s*",
    re.IGNORECASE,
)
REPEATING = re.compile(
    r"(?P<start>-?\d{0,12}\.\d{0,12}?)(?:(?P<seen>\d{1,12}?)(?P=seen)+(?:\.\.+|\s*\\[lc]?dots)"
    r"|\\(?:overline|bar|dot)\s*\{?(?P<barred>\d{1,12})\}?)"
)
SHORT_MULTIPLE = re.compile(r"(.*\d)(k|K|M|B|bn)", re.DOTALL)
SHORT_MULTIPLES = {
    "k": "thousand",
    "K": "thousand",
    "M": "million",
    "B": "billion",
    "bn": "billion",
}
OTHER_VALUES = re.compile(r"\b(?:and|or|not|to|than|but|maybe|plus|minus|times)\b", re.IGNORECASE)
"""Words that a unit has not: `5 or more` is not 5."""
PART = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)\.?(?:,\s*|\s+and\s+|\s*)")
APPROXIMATELY = re.compile(r"\s*\((?:approx\.?|approximately|rounded)\)$", re.IGNORECASE)
MULTIPLES = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
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


def readings(text: str) -> tuple[Quantity, ...]:
    """What `text` may mean: `5M` is five million or of a unit, `300K` a temperature or not."""
    short = SHORT_MULTIPLE.fullmatch(text.strip())
    found = quantity(text), quantity(f"{short[1]} {SHORT_MULTIPLES[short[2]]}") if short else None
    return tuple(each for each in found if each is not None)


def quantity(text: str) -> Quantity | None:
    """A number with an optional unit, and nothing else; None for anything more.

    `2 h 30 min` is one number, too.
    """
    text = ABOUT.sub("", LEAD.sub("", APPROXIMATELY.sub("", text.strip()))).strip()
    return _repeating(text) or _single(text) or _compound(text)


def _single(text: str) -> Quantity | None:
    text = POWER_OF_TEN.sub(_exponent, text)
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
        or OTHER_VALUES.search(rest)
        or not re.match(r"[^\W\d_]|[$\u20ac\u00a3\u00a5\u00b0%/\\]", rest)
    ):
        return None
    unit = read_unit(rest.replace("\\Omega", "\u03a9"))
    if unit is None or "\\" in rest.replace("\\Omega", "") or re.search(r"[=<>+,;:!?|]", rest):
        return None
    symbol = re.match(r"[^\W\d_]+|.", rest)
    assert symbol is not None
    decade = rest == "s" and value.denominator == 1 and 1000 < value < 2100 and value % 10 == 0
    # 4M may be four times a mass, and 1990s are not seconds.
    if not spaced and (not unit.known or rest == "M" or decade):
        return None
    if not unit.known and len(symbol[0]) == 1 and symbol[0] not in LETTER_UNITS:
        return None
    return Quantity(value, unit, last_place)


def _exponent(found: re.Match[str]) -> str:
    return f"{'' if found['times'] else '1'}e{found[2] or found[3]}"


def _repeating(text: str) -> Quantity | None:
    """`0.333...`, which is a third."""
    found = REPEATING.fullmatch(text)
    if found is None:
        return None
    start, again = found["start"], found["seen"] or found["barred"]
    decimals = len(start.partition(".")[2])
    tail = Fraction(int(again), (10 ** len(again) - 1) * 10**decimals)
    value = Fraction(f"{start.lstrip('-')}0" if start[-1] == "." else start.lstrip("-")) + tail
    return Quantity(-value if start[0] == "-" else value, None, None)


def _compound(text: str) -> Quantity | None:
    """`2 hours 30 minutes`: each unit smaller than the one before, and less than one of it."""
    parts = PART.findall(text)
    if len(parts) < 2 or PART.sub("", text):
        return None
    total, last = Fraction(0), None
    for number, name in parts:
        unit = read_unit(name)
        if unit is None or not unit.known:
            return None
        size = Fraction(number) * unit.scale
        if last is not None and (unit.powers != last.powers or size >= last.scale):
            return None
        total, last = total + size, unit
    assert last is not None
    return Quantity(total / last.scale, last, None)


def _spelled(text: str) -> Quantity | None:
    """`three`, `twenty-one`, `two apples`."""
    first, _, rest = text.lower().replace("-", " ").partition(" ")
    if first not in WORDS:
        return None
    value = WORDS[first]
    second, _, further = rest.partition(" ")
    if value >= 20 and 0 < WORDS.get(second, 0) < 10:
        value, rest = value + WORDS[second], further
    if rest.partition(" ")[0] in (*WORDS, "half", "dozen", "third", "quarter"):
        return None
    return _with_unit(Fraction(value), None, "", f" {rest}")
