"""Yes or no, in the words that models put around them."""

from __future__ import annotations

import re

_SAYS = {"yes": "yes", "no": "no", "true": "yes", "false": "no"}
_LETTER = {"y": "yes", "n": "no"}
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|the|final|correct|answer|statement|claim|is|it's|it|this|that)"
    r"\b[\s,:]*)+",
    re.IGNORECASE,
)
# `no change`, `no idea` and `no one` are no verdicts: what follows must be another clause.
_VERDICT = re.compile(
    r"(yes|no|true|false)(?:$|\s*[.,;:!?(\n]|\s+[-\u2014]|\s+(?:because|since|as|it|it's|there|they|"
    r"he|she|we|you|i|this|that|these|those|the)\b)(.*)",
    re.DOTALL | re.IGNORECASE,
)
_CLAUSES = re.compile(r"[.,;:!?()/\n\u2014-]|\b(?:and|or|but)\b")


def expected_verdict(text: str) -> str | None:
    """`yes` or `no` when that is all that `text` says; None for `N`, which may be north."""
    return _SAYS.get(text.lower().strip(" .,!*"))


def verdict(text: str) -> str | None:
    """`yes` or `no`; None for both, for neither, and for words that begin with one."""
    text = text.strip(" *").lower()
    if text in _LETTER:
        return _LETTER[text]
    lead = _LEAD.match(text)
    found = _VERDICT.fullmatch(text[lead.end() :] if lead else text)
    if found is None:
        return None
    said = _SAYS[found[1]]
    for clause in _CLAUSES.split(found[2]):
        clause_words = clause.split()
        if 0 < len(clause_words) < 7 and _SAYS.get(clause_words[-1], said) != said:
            return None
    return said
