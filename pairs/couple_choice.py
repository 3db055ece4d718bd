"""Which couples of near pictures become pairs: caps are asked first, answers last.

Comparing answers may take a computer algebra system 30 ms, so nothing is compared that a cap would
refuse, and no two answers twice. Memory holds one number a couple and what was chosen.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from contextrl.pairs.pictures import Asked, Pictures, in_common

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contextrl.pairs.neighbours import Couples

SameAnswer = Callable[[str, str], bool | None]
"""None where it cannot be told."""
TRIED = 64
"""Questions tried for one couple of pictures."""
TRIED_EACH = 8
"""Questions of each of two pictures, where any two are compared."""
REMEMBERED = 1 << 18
"""Couples of answers."""


class Questions(StrEnum):
    """Which two rows may be compared."""

    SAME = "same"
    """They ask the same, so the other answer is known to be true of the other image."""
    ANY = "any"
    """As in the paper: what is true of the other image is for a judge to say."""


class CoupleStage(StrEnum):
    """What a couple of rows must be, in the order it is asked."""

    QUESTION = "comparable questions"
    FRESH = "no repeat of a picture couple's question"
    CAPS = "within the caps"
    ANSWERS = "different answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    per_source: int | None = None
    """Couples that show an image of one source."""
    per_image: int = 4
    """Couples that show one picture."""
    couples: int | None = None
    """In all."""


@dataclass(frozen=True, slots=True)
class Chosen:
    first: Asked
    second: Asked
    cosine: float


@dataclass(slots=True)
class Choice:
    couples: list[Chosen] = field(default_factory=list)
    seen: int = 0
    """Couples of rows whose pictures are near."""
    lost: Counter[CoupleStage] = field(default_factory=Counter)


def choose(
    near: Couples,
    pictures: Pictures,
    questions: Questions,
    caps: Caps,
    same_answer: SameAnswer,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """In an order that only the seed, the pictures and the rows' ids decide.

    Each couple of pictures is taken with one question before any is taken with a second.
    """
    choice = Choice()
    used: Counter[Hashable] = Counter()
    differ = _differ(same_answer)
    waiting = _shuffled(near, pictures, seed)
    later: dict[int, list[tuple[Asked, Asked]]] = {}
    tried, fresh = 0, 0
    while len(waiting):
        again = []
        for done, at in enumerate(waiting.tolist(), start=1):
            a, b = int(near.first[at]), int(near.second[at])
            rest = later.pop(at, None)
            if rest is None:
                rest, n_fresh = _comparable(a, b, pictures, questions, choice)
                fresh += n_fresh
            while rest:
                first, second = rest.pop()
                limits = _limits(a, b, first, second, caps)
                if any(used[key] >= most for key, most in limits.items()):
                    if any(used["picture", each] >= caps.per_image for each in (a, b)):
                        rest = []
                    continue
                tried += 1
                if not differ(first, second):
                    choice.lost[CoupleStage.ANSWERS] += 1
                    continue
                used.update(limits.keys())
                choice.couples.append(Chosen(first, second, float(near.cosines[at])))
                break
            if rest:
                later[at] = rest
                again.append(at)
            on_progress(done, len(waiting))
        waiting = np.array(again, np.int64)
    choice.lost[CoupleStage.CAPS] = fresh - tried
    return choice


def _comparable(
    a: int, b: int, pictures: Pictures, questions: Questions, choice: Choice
) -> tuple[list[tuple[Asked, Asked]], int]:
    """The couples of questions to try, last first, and how many there are."""
    ours, theirs = pictures.asked(a), pictures.asked(b)
    n_rows = sum(each.n_rows for each in ours) * sum(each.n_rows for each in theirs)
    choice.seen += n_rows
    if questions is Questions.SAME:
        found = list(in_common(ours, theirs))
        n_found, comparable = len(found), sum(one.n_rows * two.n_rows for one, two in found)
    else:
        found = list(product(ours[:TRIED_EACH], theirs[:TRIED_EACH]))
        n_found, comparable = len(ours) * len(theirs), n_rows
    choice.lost[CoupleStage.QUESTION] += n_rows - comparable
    choice.lost[CoupleStage.FRESH] += comparable - n_found
    return found[:TRIED][::-1], n_found


def _limits(a: int, b: int, first: Asked, second: Asked, caps: Caps) -> dict[Hashable, int]:
    limits: dict[Hashable, int] = {("picture", a): caps.per_image, ("picture", b): caps.per_image}
    if caps.per_source is not None:
        limits["source", first.row.set_name] = caps.per_source
        limits["source", second.row.set_name] = caps.per_source
    if caps.couples is not None:
        limits["all"] = caps.couples
    return limits


def _differ(same_answer: SameAnswer) -> Callable[[Asked, Asked], bool]:
    """Whether two answers certainly say something else: what cannot be told makes no pair."""

    @lru_cache(REMEMBERED)
    def other(first: str, second: str) -> bool:
        # Either direction: what counts as the same need not be symmetric for choices.
        return same_answer(first, second) is False and same_answer(second, first) is False

    def differ(first: Asked, second: Asked) -> bool:
        if not set(first.answers).isdisjoint(second.answers):
            return False
        return other(*sorted((first.row.answer, second.row.answer)))

    return differ


def _shuffled(near: Couples, pictures: Pictures, seed: int) -> NDArray[np.int64]:
    keys = np.empty(len(near), np.uint64)
    start = f"{seed}\0".encode()
    for at, (a, b) in enumerate(zip(near.first.tolist(), near.second.tolist(), strict=True)):
        low, high = sorted((pictures.name(a), pictures.name(b)))
        keys[at] = int.from_bytes(hashlib.sha256(start + low + high).digest()[:8], "big")
    return np.argsort(keys, kind="stable")
