"""Which answers are mathematics, and what the computer algebra system must not be asked.

`math-verify` reads capitals as small letters, takes `2ab` for 2 with a unit, and the right side of
any equation for its answer; so these are settled before it is asked.
"""

from __future__ import annotations

import re

from contextrl.verl_ext.math_grader import equal_expressions
from contextrl.verl_ext.quantities import quantity
from contextrl.verl_ext.units import read_unit

_COMMAND = re.compile(r"\\[A-Za-z]+")
_FUNCTION = re.compile(r"(?<![A-Za-z])(?:sin|cos|tan|log|ln|exp|sqrt|max|min|mod)(?![A-Za-z])")
_SUBSCRIPT = re.compile(r"_\{\w*\}|_\w")
_EQUALS = re.compile(r"(?<![<>!=:])=(?![=>])")
_NAME = re.compile(r"[A-Za-z]{1,3}'*|\\[A-Za-z]+|[A-Za-z]\s*\([A-Za-z]\)")
_NAMES = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
# Words, arrows, decades, a sum without its end; a formula of chemistry, whose letters would be a
# product; and what the library drops or evaluates to zero: transposition, derivatives.
_NO_FORMULA = re.compile(
    r"->|=>|[?;\"]|\b(?:and|or|not|to|than|but)\b|\d{3}0s\b|\u00b0\s*[NSEW]\b|[-+*/=<>^]\s*$|(?<![\\A-Za-z])"
    r"[A-Z][a-z]?\d|\^\s*\{?\s*(?:T(?!\w)|\\top)|\\frac\s*\{\s*(?:d|\\partial)|\bd[a-z]?/d[a-z]"
)
# The library takes the letters of `2 g h` for units.
_PRODUCT_SPACE = re.compile(r"(?:(?<=\d)|(?<=(?<![A-Za-z\\])[A-Za-z])) (?=[A-Za-z](?![A-Za-z]))")
_SPARE_LETTERS = "pqrstuvwyzkmnabcjl"


def same_mathematics(given: str, expected: str) -> bool:
    """Raises `TooLongError` where the computation is given up."""
    if not (is_symbolic(given) and is_symbolic(expected)):
        return False
    if not re.search(r"[\d\\^=*/+<>|-]", given + expected):
        return False  # the letters of two names in another order are no product
    turn = _same_angle(given, expected)
    if turn is not None:
        return turn
    (given, of_given), (expected, of_expected) = _without_unit(given), _without_unit(expected)
    if of_given and of_expected and of_given != of_expected:
        return False
    for one, other in ((given, expected), (expected, given)):
        if _has_variable(one) and quantity(other) is not None:
            return False
    if not _sides_fit(given, expected):
        return False
    if bool(_EQUALS.search(given)) != bool(_EQUALS.search(expected)):
        given, expected = (_EQUALS.split(text)[-1].strip() for text in (given, expected))
    return equal_expressions(*_tell_capitals(_ascii(given), _ascii(expected)))


def is_symbolic(text: str) -> bool:
    """Formulas of short names, no sentence and no row of arrows."""
    if len(text) > 300 or _NO_FORMULA.search(text):
        return False
    bare = _FUNCTION.sub(" ", _COMMAND.sub(" 1 ", _SUBSCRIPT.sub("", text)))
    long_words = [read_unit(word) for word in re.findall(r"[A-Za-z]{5,}", bare)]
    if not all(unit is not None and unit.known for unit in long_words):
        return False
    return len(re.findall(r"[A-Za-z]{2,}\s+(?=[A-Za-z]{2,})", bare)) < 2


def _same_angle(given: str, expected: str) -> bool | None:
    """Of a multiple of pi and a number of degrees; None for other answers."""
    for one, other in ((given, expected), (expected, given)):
        degrees = quantity(other)
        if degrees is None or degrees.unit is None or degrees.unit.powers != (("deg", 1),):
            continue
        if "\\pi" in one and "\u00b0" not in one:
            turn = re.sub(r"\s*\brad(?:ians?)?\s*$", "", one)
            value = degrees.value
            return equal_expressions(
                turn, f"\\frac{{{value.numerator}\\pi}}{{{180 * value.denominator}}}"
            )
    return None


def _sides_fit(given: str, expected: str) -> bool:
    """An equation answers for its right side only when the left one is a name."""
    sides = [[side.strip() for side in _EQUALS.split(text)] for text in (given, expected)]
    if (len(sides[0]) > 1) == (len(sides[1]) > 1):
        return True
    equation = sides[0] if len(sides[0]) > 1 else sides[1]
    left = re.sub(r"\s+", "", _SUBSCRIPT.sub("", equation[0]))
    if len(sides[1]) > 1 and _NAME.fullmatch(_SUBSCRIPT.sub("", equation[-1])):
        return False  # `a = b` says more than `b`
    constant = not re.search(r"[A-Za-z]", _COMMAND.sub("", left).replace("\\pi", ""))
    return constant or _NAME.fullmatch(left) is not None or "angle" in left


def _without_unit(text: str) -> tuple[str, object]:
    """`4\\pi cm^2` without its unit, and the unit if it is one that we know."""
    found = re.fullmatch(r"(.*[\d}\\i)])\s+([A-Za-z\u03a9\u03bc\u00b0][^\\=<>+]*)", text, re.DOTALL)
    if found and any(found[1].count(a) != found[1].count(b) for a, b in ("{}", "()")):
        return text, None  # `g h` in `\sqrt{2 g h}` are no units
    unit = read_unit(found[2]) if found else None
    return (found[1], unit) if found and unit is not None and unit.known else (text, None)


def _has_variable(text: str) -> bool:
    """A letter behind a digit that is neither a unit nor the imaginary one."""
    names = re.findall(r"\d\s*([A-Za-z]+)", re.sub(r"\\[A-Za-z]+", " ", text))
    units = [read_unit(name) for name in names if name not in ("e", "i")]
    return not all(unit is not None and unit.known for unit in units)


def _ascii(text: str) -> str:
    text = re.sub(r"[\u00b7\u22c5]", r"\\cdot ", text.replace("\u00d7", "\\times "))
    text = _PRODUCT_SPACE.sub("", text)
    return re.sub(r"\s*([-+=*/<>])\s*", r"\1", text)


def _tell_capitals(given: str, expected: str) -> tuple[str, str]:
    """A capital whose small letter occurs too becomes another letter in both texts."""
    names = set(_NAMES.findall(given + " " + expected))
    spare = [letter for letter in _SPARE_LETTERS if not names & {letter, letter.upper()}]
    for capital in sorted(name for name in names if name.lstrip("\\")[0].isupper()):
        if capital.lower() in names and spare:
            new = f" {spare.pop(0)} "
            given, expected = (
                _NAMES.sub(lambda found, c=capital, n=new: n if found[0] == c else found[0], text)
                for text in (given, expected)
            )
    return given, expected
