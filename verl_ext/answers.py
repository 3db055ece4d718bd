"""Do two answers say the same? For every form the benchmarks use, from letters to LaTeX.

Cheap and exact comparisons come first; mathematics that none of them settles goes to `math-verify`
in a process of its own, because a model's output may ask it for a computation without an end.
"""

from __future__ import annotations

import re
import unicodedata

from contextrl.verl_ext.choices import option, run_together, several
from contextrl.verl_ext.math_grader import equal_expressions
from contextrl.verl_ext.quantities import quantity, same_quantity
from contextrl.verl_ext.units import read_unit

SAME_WORDS = {"true": "yes", "false": "no", "y": "yes", "n": "no"}
SMALL_WORDS = re.compile(r"\b(?:a|an|the)\s+(?=\w\w)")
BOTH = re.compile(r"(?:yes|no)\s*(?:and|or|/)\s*(?:yes|no)\b", re.IGNORECASE)
TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?m\.?)?", re.IGNORECASE)
LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a", "0123456789-+"
)
SYMBOLS = {
    "\u2212": "-",
    "\u03c0": "\\pi ",
    "\u221e": "\\infty ",
    "\u00b1": "\\pm ",
    "\u2264": "\\le ",
    "\u2265": "\\ge ",
    "\u00ba": "\u00b0",
    "^{\\circ}": "\u00b0",
    "^\\circ": "\u00b0",
    "\\%": "%",
    "\\$": "$",
    "\\,": " ",
    "\\;": " ",
    "\\:": " ",
    "\\ ": " ",
    "\\!": "",
    "\\left": "",
    "\\right": "",
    "**": "",
    "`": "",
}


def same_answer(given: str, expected: str) -> bool:
    """Symmetric but for choices, of which a letter or its text suffices, and for rounding."""
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
        return not BOTH.match(given) and _word(re.split(r"[\s,.;:!]", given)[0]) == verdict
    times = TIME.fullmatch(given), TIME.fullmatch(expected)
    if times[0] is not None and times[1] is not None:
        return _same_time(times[0], times[1])
    left, right = quantity(given), quantity(expected)
    if left is not None and right is not None:
        return same_quantity(left, right)
    items = _same_list(given, expected)
    if items is not None:
        return items
    if words(given) == words(expected) and words(expected):
        return True
    return _same_mathematics(given, expected)


def plain(text: str) -> str:
    """Without what does not change an answer: mathematics' delimiters, emphasis, a final stop."""
    text = re.sub(
        r"[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+",
        lambda found: f"^{{{found[0].translate(SUPERSCRIPTS)}}}",
        text,
    )
    text = re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", " ", text)
    text = unicodedata.normalize("NFKC", text.replace("\u00ba", "\u00b0")).replace("\u2044", "/")
    for symbol, written in SYMBOLS.items():
        text = text.replace(symbol, written)
    text = re.sub(r"\u221a\s*(\d+|\w|\([^()]*\))", r"\\sqrt{\1}", LATEX_TEXT.sub(r"\1", text))
    text = text.replace("~", " ").strip()
    for opening, closing in (
        ("$$", "$$"),
        ("\\(", "\\)"),
        ("\\[", "\\]"),
        ("$", "$"),
        ('"', '"'),
        ("'", "'"),
    ):
        if (
            len(text) >= len(opening + closing)
            and text.startswith(opening)
            and text.endswith(closing)
        ):
            text = text[len(opening) : len(text) - len(closing)]
    return text.strip().strip("*").rstrip(".").strip()


def words(text: str) -> str:
    """Lower case, without punctuation, articles and spaces around operators."""
    kept = re.sub(r"[^\w\s.%/+-]|_", " ", re.sub(r"_\{?(\w+)\}?", r"\1", text.lower()))
    kept = re.sub(r"\s*([/+-])\s*", r"\1", kept)
    return " ".join(SMALL_WORDS.sub(" ", kept).split())


def _same_choice(given: str, expected: str) -> bool | None:
    """None when the expected answer is no letter of a choice."""
    listed, joined = several(expected), run_together(expected)
    if listed or joined:
        chosen = several(given) or (run_together(given) if listed else None)
        if chosen is None:
            return False if listed and option(given) else None
        return chosen == (listed or joined)
    asked = option(expected)
    if asked is None or not re.search(
        r"[A-J]", expected[: expected.upper().find(asked.letter) + 1]
    ):
        return None
    answered = option(given)
    if answered is not None:
        return answered.letter == asked.letter
    if not asked.text:
        return False
    beside = re.fullmatch(rf"\(?{asked.letter}\)?\s+(.+)", given, re.DOTALL)
    return same_answer(beside[1] if beside else given, asked.text)


def _same_time(given: re.Match[str], expected: re.Match[str]) -> bool:
    """Half of the day and seconds count where both tell them."""
    clocks = [(int(t[1]), t[2], t[3] or "00", (t[4] or "").lower()) for t in (given, expected)]
    halves = {clock[3] for clock in clocks} - {""}
    return clocks[0][:3] == clocks[1][:3] and len(halves) < 2


def _same_list(given: str, expected: str) -> bool | None:
    """None when either is no list. A tuple in round brackets has an order, other lists have not."""
    left, right = _items(given), _items(expected)
    if left is None or right is None:
        other = given if left is None else expected
        return False if (left or right) and quantity(other) is not None else None
    if len(left) != len(right):
        return False
    ends = [text[0] + text[-1] for text in (given, expected)]
    if ends[0] != ends[1] and {"(]", "[)"} & set(ends):
        return False
    if "(" in (given[0], expected[0]):
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
    signs = re.fullmatch(r"(?:[a-z]\s*=\s*)?\\pm\s*(.+)", inner)
    if signs is not None:
        inner = f"{signs[1]}, -{signs[1]}"
    if any(bracket in inner for bracket in "()[]{}"):
        return None
    items = [item.strip() for item in re.split(r",\s*(?:and\s+)?|;\s*|\s+(?:and|or)\s+", inner)]
    return items if len(items) > 1 and all(items) else None


def _word(text: str) -> str:
    word = text.lower().strip(" .,!*")
    return SAME_WORDS.get(word, word)


def _same_mathematics(given: str, expected: str) -> bool:
    if not _is_mathematical(expected):
        return False
    (given, of_given), (expected, of_expected) = _without_unit(given), _without_unit(expected)
    if of_given and of_expected and of_given != of_expected:
        return False
    for one, other in ((given, expected), (expected, given)):
        if _has_variable(one) and quantity(other) is not None:
            return False  # the library takes 2ab for 2 with a unit
    return equal_expressions(given, expected)


def _without_unit(text: str) -> tuple[str, object]:
    """`4\\pi cm^2` without its unit, and the unit if it is one that we know."""
    found = re.fullmatch(r"(.*[\d}\\i)])\s+([A-Za-z\u03a9\u03bc\u00b0][^\\=<>+]*)", text, re.DOTALL)
    unit = read_unit(found[2]) if found else None
    return (found[1], unit) if found and unit is not None and unit.known else (text, None)


def _has_variable(text: str) -> bool:
    """A letter right behind a digit that is neither a unit nor the imaginary one."""
    names = re.findall(r"\d([A-Za-z]+)", re.sub(r"\\[A-Za-z]+", " ", text))
    units = [read_unit(name) for name in names if name not in ("e", "i")]
    return not all(unit is not None and unit.known for unit in units)


def _is_mathematical(text: str) -> bool:
    """Worth a computer algebra system: digits, LaTeX or operators, and not a sentence."""
    return len(text) <= 300 and len(text.split()) <= 20 and bool(re.search(r"[\d\\^=*/]", text))
