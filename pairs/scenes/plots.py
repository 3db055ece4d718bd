"""Function plots, read as in the paper's Figure 1: find x, go to the curve, read off g(x)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, PALE, Canvas, Point
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

_PER_UNIT = 8
"""Straight pieces of the curve between two grid lines."""


def plot(rng: Random, level: Level) -> Scene:
    """The curve passes through another grid point at one x; hard ones ask for g(g(x))."""
    reach = level.steps(2, 5)
    grid = range(-reach, reach + 1)
    values = {x: rng.choice(grid) for x in grid}
    nested = rng.random() < 0.5 * level.difficulty
    if nested:
        start, at = rng.sample(grid, 2)
        values[start] = at
        question = f"The curve shows y = g(x). What is g(g({start}))?"
    else:
        at = rng.choice(grid)
        question = f"The curve shows y = g(x). What is g({at})?"
    couple = two_of(rng, grid, level.steps(2, 1), spread=2)
    color = rng.choice(list(COLORS.values()))

    def paint(canvas: Canvas, variant: int) -> None:
        _grid(canvas, reach)
        heights = [couple[variant] if x == at else y for x, y in values.items()]
        curve = [_place(x - reach, y, reach) for x, y in _smooth(heights)]
        canvas.line(curve, color, 0.014)

    return Scene(question, (str(couple[0]), str(couple[1])), paint)


def _place(x: float, y: float, reach: int) -> Point:
    unit = 0.92 / (2 * reach)
    return 0.5 + unit * x, 0.5 - unit * y


def _grid(canvas: Canvas, reach: int) -> None:
    size = min(0.08, 0.4 / (2 * reach))
    for value in range(-reach, reach + 1):
        for start, end in (((value, -reach), (value, reach)), ((-reach, value), (reach, value))):
            line = [_place(*start, reach), _place(*end, reach)]
            canvas.line(line, INK if value == 0 else PALE, 0.008 if value == 0 else 0.003)
        if value:
            x, y = _place(value, 0, reach)
            canvas.text((x, y + 0.75 * size), str(value), size)
            x, y = _place(0, value, reach)
            canvas.text((x - 0.4 * size, y), str(value), size, anchor="rm")


def _smooth(heights: Sequence[int]) -> list[Point]:
    """A curve through (0, heights[0]), (1, heights[1]), ... that never leaves their range.

    Cubic pieces with the slopes of Fritsch and Carlson (SIAM J. Numer. Anal. 17, 1980): zero where
    the heights turn, else the harmonic mean of both sides. So one height moves the curve no
    further than two places away.
    """
    rises = [second - first for first, second in pairwise(heights)]
    slopes = [float(rises[0])]
    for before, after in pairwise(rises):
        slopes.append(2 * before * after / (before + after) if before * after > 0 else 0.0)
    slopes.append(float(rises[-1]))
    points: list[Point] = []
    for at, rise in enumerate(rises):
        for part in range(_PER_UNIT):
            t = part / _PER_UNIT
            ease = t * t * (3 - 2 * t)
            bend = slopes[at] * t * (1 - t) ** 2 - slopes[at + 1] * t * t * (1 - t)
            points.append((at + t, heights[at] + rise * ease + bend))
    return [*points, (len(heights) - 1, heights[-1])]


FAMILIES = (Family(name="plot", domain="math", least_side=112, compose=plot),)
