"""Cloths with a woven pattern."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, Canvas, Point
from contextrl.pairs.scenes.figures import scattered
from contextrl.pairs.scenes.types import Family, Level, Scene

PATTERNS = ("plain", "dotted", "checked", "striped", "ringed", "crossed")
WHITE = "#ffffff"


def patterns(rng: Random, level: Level) -> Scene:
    """One cloth has another pattern; in hard scenes among many, and finely woven."""
    others = level.steps(0, 7)
    places = scattered(rng, others + 1, level)
    couple = rng.sample(PATTERNS, 2)
    hues = rng.sample(list(COLORS), len(COLORS))
    rest = [(rng.choice(PATTERNS), rng.choice(hues[1:])) for _ in range(others)]
    repeats = level.steps(3, 6)
    phases = [rng.random() for _ in places]

    def paint(canvas: Canvas, variant: int) -> None:
        cloths = [(couple[variant], hues[0]), *rest]
        for (pattern, hue), (place, radius), phase in zip(cloths, places, phases, strict=True):
            _weave(canvas, pattern, COLORS[hue], (place, radius), repeats, phase)

    question = f"What pattern does the {hues[0]} cloth have?"
    return Scene(question, (couple[0], couple[1]), paint)


def _weave(
    canvas: Canvas,
    pattern: str,
    color: str,
    where: tuple[Point, float],
    repeats: int,
    phase: float,
) -> None:
    """A square cloth of `color`, its pattern in white, `repeats` times across."""
    (x, y), radius = where
    left, top, side = x - radius, y - radius, 2 * radius
    canvas.box((left, top), (left + side, top + side), color)
    cell = side / repeats
    if pattern == "striped":
        for row in range(repeats):
            edge = top + cell * (row + 0.5 * phase)
            canvas.box((left, edge), (left + side, edge + 0.45 * cell), WHITE)
    elif pattern != "plain":
        for at in range(repeats * repeats):
            corner = (left + cell * (at % repeats), top + cell * (at // repeats))
            _motif(canvas, pattern, corner, cell, phase)
    canvas.box((left, top), (left + side, top + side), None, INK)


def _motif(canvas: Canvas, pattern: str, corner: Point, cell: float, phase: float) -> None:
    middle = (corner[0] + cell / 2, corner[1] + cell / 2)
    if pattern == "dotted":
        canvas.disc(middle, (0.2 + 0.06 * phase) * cell, WHITE)
    elif pattern == "ringed":
        canvas.disc(middle, (0.38 + 0.06 * phase) * cell, None, WHITE, 0.16 * cell)
    elif pattern == "checked":
        half = cell / 2
        canvas.box(corner, (corner[0] + half, corner[1] + half), WHITE)
        canvas.box(middle, (middle[0] + half, middle[1] + half), WHITE)
    elif pattern == "crossed":
        reach = (0.36 + 0.06 * phase) * cell
        for slope in (-1, 1):
            ends = [(middle[0] + way * reach, middle[1] + way * slope * reach) for way in (-1, 1)]
            canvas.line(ends, WHITE, 0.14 * cell)


FAMILIES = (Family(name="patterns", domain="natural", least_side=56, compose=patterns),)
