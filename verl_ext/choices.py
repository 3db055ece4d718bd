"""Letters of a multiple choice, in the words that models put around them."""

from __future__ import annotations

import re
from dataclasses import dataclass

LETTERS = "A-J"
_FILLER = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|the|my|our|this|final|correct|best|right|closest|answer|"
    r"option|choice|letter|point|figure|image|picture|graph|diagram|panel|statement|label|is|it|"
    r"it's|would be|must be|should be|i choose|i pick|i select|choose|select|i think|i believe|"
    r"i guess|i would say|i'd say|yes(?=\s*,))\b|[:=,*-])\s*",
    re.IGNORECASE,
)
_OPTION = re.compile(
    rf"[(\[{{]?\s*(?P<letter>[{LETTERS}{LETTERS.lower()}])(?:\s*(?P<closed>[)\]}}]))?(?P<rest>.*)",
    re.DOTALL,
)
# What may follow the letter: its text, or a reason.
_AFTER = re.compile(
    r"\s*[.:,;]\s*(?P<text>.*)|\s+[-\u2013\u2014](?!>)\s*(?P<dashed>.*)|"
    r"\s+(?:because|since|as|for)\b.*|\s*\n(?P<below>.*)|\s+\((?P<beside>[^()]*)\)\s*|"
    r"\s+(?:is|would be|must be|should be)\s+(?:the\s+)?(?:correct|right|best|true|closest)"
    r"(?:\s+(?:one|answer|option|choice))?\s*(?:[.!,]|$|\b(?:because|since|as)\b).*|\s*",
    re.DOTALL | re.IGNORECASE,
)
# `E - mgh` is a formula, not option E.
_SAYS_WHAT = re.compile(r"\d\s+[A-Za-z%]|(?<![A-Za-z])(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{3}")
_ANOTHER = re.compile(
    rf"(?:and|or|not|&|/)?\s*[(\[]?(?:[{LETTERS}]|[IVX]{{1,4}})(?:[)\]]|\s*$|\s*[,;.]\s|\s+(?:and|or)\b)",
    re.IGNORECASE,
)
_SEPARATOR = r"\s*(?:,\s*and\b|,|;|\band\b|&|\s)\s*"
_SEVERAL = re.compile(rf"[{LETTERS}](?:{_SEPARATOR}[{LETTERS}])+")


@dataclass(frozen=True, slots=True)
class Option:
    letter: str
    text: str
    """What stands beside the letter; empty when nothing does."""


def option(text: str) -> Option | None:
    """The one letter that `text` names; None for several, and for words that begin with one.

    A small letter counts only when it stands alone or is marked as an option: `b`, `(b) 5`.
    """
    text = text.strip()
    while filler := _FILLER.match(text):
        text = text[filler.end() :]
    found = _OPTION.fullmatch(text)
    if found is None:
        return None
    after = found["rest"]
    if found["closed"] and not _AFTER.fullmatch(after):
        return Option(found["letter"].upper(), after.strip()) if after[:1].isspace() else None
    followed = _AFTER.fullmatch(after)
    if followed is None:
        return None
    if followed["dashed"] and not _SAYS_WHAT.search(followed["dashed"]):
        return None
    beside = (followed["text"] or followed["dashed"] or followed["beside"] or "").strip()
    if _ANOTHER.match(beside) or _ANOTHER.match((followed["below"] or "").strip()):
        return None
    if found["letter"].islower() and after.strip() and not (found["closed"] or after[0] in ".:"):
        return None
    return Option(found["letter"].upper(), beside)


def several(text: str) -> frozenset[str] | None:
    """The letters of `A, C` or `(A) and (C)`; None when it is no list of letters."""
    bare = re.sub(r"[()\[\]{}]", "", text).strip()
    return frozenset(re.findall(f"[{LETTERS}]", bare)) if _SEVERAL.fullmatch(bare) else None


def run_together(text: str) -> frozenset[str] | None:
    """The letters of `ACD`, which could be a word of its own, such as the name of an angle."""
    bare = text.strip("()[]{} ")
    ascending = len(bare) > 1 and list(bare) == sorted(set(bare))
    return frozenset(bare) if ascending and re.fullmatch(f"[{LETTERS}]+", bare) else None
