"""The nouns of drawn pairs: a family composes a scene, a scene paints its two variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeVar

from contextrl.pairs.types import Box

if TYPE_CHECKING:
    from PIL.Image import Image

    from contextrl.pairs.scenes.canvas import Canvas

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Level:
    """How hard, from 0 to 1, in the terms that a family thinks in."""

    difficulty: float

    def __post_init__(self) -> None:
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty must be between 0 and 1, got {self.difficulty}")

    def between(self, easy: float, hard: float) -> float:
        return easy + (hard - easy) * self.difficulty

    def steps(self, easy: int, hard: int) -> int:
        """The same for things that are counted."""
        return round(self.between(easy, hard))


@dataclass(frozen=True, slots=True)
class Scene:
    """Two images that differ in one decisive thing, and what is asked about it."""

    question: str
    answers: tuple[str, str]
    paint: Callable[[Canvas, int], None]
    """Paints variant 0 or 1. All chance lies in the scene: painting draws no random number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of scene."""

    name: str
    domain: str
    """As published sets are counted: chart, geometry, natural, science or table."""
    least_side: int
    """Pixels below which its labels cannot be read; a multiple of 28, as all sides are."""
    compose: Callable[[Random, Level], Scene]
    """Which answer comes first must be a fair coin, whatever the question says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePair:
    """`answer_positive` is true of `image_positive` and of it alone."""

    family: str
    seed: int
    difficulty: float
    question: str
    answer_positive: str
    answer_negative: str
    image_positive: Image
    image_negative: Image
    box: Box
    """Holds every pixel in which the two images differ, and its border touches one on each side."""


def two_of(rng: Random, values: Sequence[T], gap: int, spread: int = 1) -> tuple[T, T]:
    """Two values whose places are `gap` to `gap + spread - 1` apart, in either order.

    Where the values are too few for the gap, the widest that they allow is taken.
    """
    gap = max(1, min(gap, len(values) - spread))
    apart = min(gap + rng.randrange(spread), len(values) - 1)
    first = rng.randrange(len(values) - apart)
    couple = (values[first], values[first + apart])
    return couple if rng.random() < 0.5 else (couple[1], couple[0])
