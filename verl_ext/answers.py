"""Do two answers say the same? For every form the benchmarks use, from letters to LaTeX.

Cheap and exact comparisons come first; mathematics that none of them settles goes to `math-verify`
in a process of its own, because a model's output may ask it for a computation without an end.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from contextrl.verl_ext.math_grader import equal_expressions

TOLERANCE = 1e-6
"""Relative, of numbers."""
CHOICE = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*)?"
    r"[\(\[]?(?P<letter>[a-j])(?:[\)\]\.:,](?P<text>.*)|\s*)",
    re.DOTALL | re.IGNORECASE,
)
NUMBER = re.compile(
    r"(?P<sign>[-+]?)(?P<currency>[$\u20ac\u00a3\u00a5]?)\s*"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:e(?P<power>[-+]?\d{1,3}))?"
    r"(?:\s*/\s*(?P<below>\d+))?"
    r"\s*(?P<unit>%|[a-z\u00b0\u03bc/][a-z0-9\u00b0\u03bc/ .^*-]*)?",
    re.IGNORECASE,
)
SAME_WORDS = {"true": "yes", "false": "no", "y": "yes", "n": "no"}
UNIT_WORDS = {
    "degree": "deg",
    "degrees": "deg",
    "\u00b0": "deg",
    "percent": "%",
    "per cent": "%",
    "meter": "m",
    "meters": "m",
    "metre": "m",
    "metres": "m",
    "centimeter": "cm",
    "centimeters": "cm",
    "kilometer": "km",
    "kilometers": "km",
    "kilogram": "kg",
    "kilograms": "kg",
    "gram": "g",
    "grams": "g",
    "second": "s",
    "seconds": "s",
    "sec": "s",
    "hour": "h",
    "hours": "h",
    "minute": "min",
    "minutes": "min",
}
SMALL_WORDS = re.compile(r"\b(?:a|an|the)\b")
LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
SIMPLE_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")


@dataclass(frozen=True, slots=True)
class Quantity:
    value: Fraction
    unit: str
    """Empty when none was given; `%` for a percentage."""


def same_answer(given: str, expected: str) -> bool:
    """Symmetric but for choices: `expected` may hold a letter and its text, either one suffices."""
    given, expected = plain(given), plain(expected)
    if not given or not expected:
        return False
    if given == expected:
        return True
    choice = _same_choice(given, expected)
    if choice is not None:
        return choice
    verdict = _word(expected)
    if verdict in ("yes", "no"):
        return _word(re.split(r"[\s,.;:!]", given, maxsplit=1)[0]) == verdict
    left, right = quantity(given), quantity(expected)
    if left is not None and right is not None:
        return same_quantity(left, right)
    items = _same_list(given, expected)
    if items is not None:
        return items
    if words(given) == words(expected) and words(expected):
        return True
    return _is_mathematical(expected) and equal_expressions(given, expected)


def plain(text: str) -> str:
    """Without what does not change an answer: mathematics' delimiters, emphasis, a final stop."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").strip()
    text = text.replace("\\%", "%").replace("\\$", "$").replace("\\,", " ").replace("\\!", "")
    text = text.replace("\\left", "").replace("\\right", "").replace("^\\circ", "\u00b0")
    text = text.replace("^{\\circ}", "\u00b0").replace("**", "").replace("`", "")
    text = SIMPLE_FRACTION.sub(r"\1/\2", LATEX_TEXT.sub(r"\1", text))
    for opening, closing in (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]"), ("$", "$"), ('"', '"')):
        if (
            len(text) >= len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
        ):
            text = text[len(opening) : len(text) - len(closing)]
    return text.strip().rstrip(".").strip()


def quantity(text: str) -> Quantity | None:
    """A number with an optional unit, and nothing else; None for anything more."""
    match = NUMBER.fullmatch(re.sub(r"^[a-z]\s*=\s*", "", text.strip(), flags=re.IGNORECASE))
    if match is None:
        return None
    value = Fraction(match["whole"].replace(",", "").rstrip(".") or "0")
    if match["power"]:
        value *= Fraction(10) ** int(match["power"])
    if match["below"]:
        if int(match["below"]) == 0:
            return None
        value /= int(match["below"])
    unit = (match["unit"] or match["currency"] or "").strip().lower()
    unit = UNIT_WORDS.get(unit, re.sub(r"[\s^.*]", "", unit))
    return Quantity(-value if match["sign"] == "-" else value, unit)


def same_quantity(left: Quantity, right: Quantity) -> bool:
    """A missing unit fits any; 50% is 50 with the sign left out, and 0.5."""
    values = {left.value}
    if left.unit == "%" and right.unit == "":
        values.add(left.value / 100)
    if right.unit == "%" and left.unit == "":
        values.add(left.value * 100)
    if left.unit and right.unit and left.unit != right.unit:
        return False
    return any(
        abs(value - right.value) <= Fraction(TOLERANCE) * max(abs(value), abs(right.value))
        for value in values
    )


def words(text: str) -> str:
    """Lower case, without punctuation and articles."""
    kept = re.sub(r"[^\w\s.%/+-]", " ", text.lower())
    return " ".join(SMALL_WORDS.sub(" ", kept).split())


def _same_choice(given: str, expected: str) -> bool | None:
    """None when the expected answer is no letter of a choice."""
    asked = CHOICE.fullmatch(expected)
    if asked is None or (asked["text"] is None and not expected.strip("()[]. ").isupper()):
        return None
    answered = CHOICE.fullmatch(given)
    if answered is not None and answered["letter"].isupper():
        return bool(answered["letter"] == asked["letter"].upper())
    text = (asked["text"] or "").strip()
    return bool(text) and same_answer(given, text)


def _same_list(given: str, expected: str) -> bool | None:
    """None when either is no list. A tuple in round brackets has an order, other lists have not."""
    left, right = _items(given), _items(expected)
    if left is None or right is None:
        return None
    if len(left) != len(right):
        return False
    if expected.startswith("(") or given.startswith("("):
        return all(map(same_answer, left, right))
    rest = list(right)
    for item in left:
        found = next((other for other in rest if same_answer(item, other)), None)
        if found is None:
            return False
        rest.remove(found)
    return True


def _items(text: str) -> list[str] | None:
    inner = re.sub(r"^[\(\[\{]|^\\\{|[\)\]\}]$|\\\}$", "", text)
    if any(bracket in inner for bracket in "()[]{}"):
        return None
    items = [item.strip() for item in re.split(r",\s*(?:and\s+)?|;\s*|\s+and\s+", inner)]
    return items if len(items) > 1 and all(items) else None


def _word(text: str) -> str:
    word = text.lower().strip(" .,!")
    return SAME_WORDS.get(word, word)


def _is_mathematical(text: str) -> bool:
    """Worth a computer algebra system: digits, LaTeX or operators, and not a sentence."""
    return len(text) <= 300 and len(text.split()) <= 20 and bool(re.search(r"[\d\\^=*/]", text))
