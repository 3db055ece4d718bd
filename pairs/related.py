"""Are two issues distinct but related? A stated measure with a bound on either side.

`similarity` is the cosine of the two issues' word sets: words of three or more letters, identifiers
split at `_` and capitals, English function words left out. `change_overlap` is the share of changed
lines (removed or added, in normal form) that two fixes have in common, of the smaller fix.

    same bug     change_overlap >= max_change_overlap, or similarity >= max_similarity
    unrelated    similarity < min_similarity
    related      everything between

The lower default comes from 233 real runs on SWE-bench Verified (docs/pairs.md): couples of issues
of different repositories have a median of 0.04 and a 95th percentile of 0.11, couples whose fixes
are in one file a median of 0.125 and a 5th percentile of 0.053.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d{3,}")
_STOP_WORDS = """
actual all also and any are been behavior behaviour being bug but can class code def
description does doesn error example expected false file for from has have how import into isn
issue its line lines more none not only print problem python reproduce return self should
steps test tests than that the then there they this true use used using version was what when
where which why will with would you
"""
_STOP = frozenset(_STOP_WORDS.split())
MAX_ISSUE_CHARS = 20_000


class Relation(StrEnum):
    SAME_BUG = "same bug"
    UNRELATED = "unrelated"
    RELATED = "related"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedBounds:
    """Both ends of "distinct but related"; see the module."""

    min_similarity: float = 0.05
    max_similarity: float = 0.85
    max_change_overlap: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.min_similarity < self.max_similarity <= 1:
            raise ValueError(
                "expected 0 <= min_similarity < max_similarity <= 1, found "
                f"{self.min_similarity} and {self.max_similarity}"
            )
        if not 0 < self.max_change_overlap <= 1:
            raise ValueError(f"max_change_overlap must be in (0, 1], got {self.max_change_overlap}")


@lru_cache(maxsize=1024)
def issue_words(text: str) -> frozenset[str]:
    found = (word.lower() for word in _WORD.findall(text[:MAX_ISSUE_CHARS]))
    return frozenset(word for word in found if len(word) > 2 and word not in _STOP)


def similarity(first: str, second: str) -> float:
    """In [0, 1]; 0 when either issue has no word."""
    a, b = issue_words(first), issue_words(second)
    return len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 0.0


def change_overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """In [0, 1]; of changed lines in normal form."""
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 0.0


def relation(
    issues: tuple[str, str],
    changes: tuple[frozenset[str], frozenset[str]],
    bounds: RelatedBounds,
) -> Relation:
    """Of two runs' issues and of the lines that their fixes change."""
    if change_overlap(*changes) >= bounds.max_change_overlap:
        return Relation.SAME_BUG
    alike = similarity(*issues)
    if alike >= bounds.max_similarity:
        return Relation.SAME_BUG
    return Relation.UNRELATED if alike < bounds.min_similarity else Relation.RELATED
