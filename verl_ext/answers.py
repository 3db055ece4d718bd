"""Do two answers say the same? For every form the benchmarks use, from letters to LaTeX.

Cheap and exact comparisons come first; mathematics that none of them settles goes to `math-verify`
in a process of its own, because a model's output may ask it for a computation without an end.
What is not recognised counts as wrong: a policy finds whatever is too generous.
"""

from __future__ import annotations

import re

from contextrl.verl_ext.choices import option, run_together, several
from contextrl.verl_ext.joined import same_row, same_time
from contextrl.verl_ext.lists import name_of, same_list
from contextrl.verl_ext.math_grader import TooLongError
from contextrl.verl_ext.notation import plain, same_text
from contextrl.verl_ext.quantities import readings, same_quantity
from contextrl.verl_ext.symbolic import same_mathematics
from contextrl.verl_ext.verdicts import expected_verdict, verdict

LONGEST_ANSWER = 1000
"""Characters; nobody's answer is longer, and a longer one could be meant to hang a parser."""


def same_answer(given: str, expected: str) -> bool:
    """Symmetric but for choices, of which a letter or its text suffices, and for rounding.

    What could not be decided is not the same: a reward needs to be sure.
    """
    return bool(decided_same(given, expected))


def decided_same(given: str, expected: str) -> bool | None:
    """As `same_answer`; None for texts too long to be compared: pairs need answers that differ."""
    if max(len(given), len(expected)) > LONGEST_ANSWER:
        return True if given.strip() and given.strip() == expected.strip() else None
    try:
        return _same(plain(given), plain(expected))
    except TooLongError:
        return None


def _same(given: str, expected: str) -> bool:
    """Of plain texts; the first comparison that knows the form of `expected` decides."""
    if not given or not expected:
        return False
    if given == expected:
        return True
    choice = _same_choice(given, expected)
    if choice is not None:
        return choice
    wanted = expected_verdict(expected)
    if wanted is not None:
        return verdict(given) == wanted
    for compare in (same_time, same_row):
        decided = compare(given, expected)
        if decided is not None:
            return decided
    left, right = readings(given), readings(expected)
    if left and right:
        same = any(same_quantity(one, other) for one in left for other in right)
        return same and not _of_another(given, expected)
    decided = same_list(given, expected, _same_item)
    if decided is not None:
        return decided
    return same_text(given, expected) or same_mathematics(given, expected)


def _of_another(given: str, expected: str) -> bool:
    """Both say of what they are the value, in symbols, and not of the same: `ab = 6`, `a = 6`."""
    names = [re.sub(r"[\s{}]", "", name_of(text)).lower() for text in (given, expected)]
    in_words = any(re.search(r"(?<!\\)\b[a-z]{3,}", name) for name in names)
    return all(names) and names[0] != names[1] and not in_words


def _same_item(given: str, expected: str) -> bool:
    return _same(plain(given), plain(expected))


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
    return _same(beside[1] if beside else given, asked.text)
