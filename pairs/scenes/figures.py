"""Figures on a page: their colours, kinds, numbers and places."""

from __future__ import annotations

import math
from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, Canvas, Point, around
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

DIRECTIONS = ("up", "up right", "right", "down right", "down", "down left", "left", "up left")
KINDS = ("circle", "square", "triangle", "star", "diamond", "hexagon")


def shapes(rng: Random, level: Level) -> Scene:
    """One figure has another colour, or is another figure."""
    return _shapes(rng, level, ask_color=rng.random() < 0.5)


def colors(rng: Random, level: Level) -> Scene:
    """One figure has another colour."""
    return _shapes(rng, level, ask_color=True)


def _shapes(rng: Random, level: Level, *, ask_color: bool) -> Scene:
    others = level.steps(0, 7)
    places = scattered(rng, others + 1, level)
    kinds = rng.sample(KINDS, len(KINDS))
    hues = rng.sample(list(COLORS), len(COLORS))
    # The first is asked about. The others must not share what the question knows it by.
    if ask_color:
        question, answers = f"What color is the {kinds[0]}?", (hues[0], hues[1])
        rest = [(rng.choice(kinds[1:]), rng.choice(hues)) for _ in range(others)]
    else:
        question, answers = f"Which shape is {hues[0]}?", (kinds[0], kinds[1])
        rest = [(rng.choice(kinds), rng.choice(hues[1:])) for _ in range(others)]

    def paint(canvas: Canvas, variant: int) -> None:
        first = (kinds[0], answers[variant]) if ask_color else (answers[variant], hues[0])
        for (kind, hue), (place, radius) in zip([first, *rest], places, strict=True):
            figure(canvas, kind, place, radius, COLORS[hue])

    return Scene(question, answers, paint)


def figure(canvas: Canvas, kind: str, center: Point, radius: float, fill: str) -> None:
    """One of `KINDS`, of about the same area for a radius."""
    if kind == "circle":
        canvas.disc(center, 0.9 * radius, fill, INK)
        return
    corners, turn, inner = {
        "square": (4, 45.0, 1.0),
        "diamond": (4, 0.0, 1.0),
        "triangle": (3, -90.0, 1.0),
        "hexagon": (6, 0.0, 1.0),
        "star": (10, -90.0, 0.45),
    }[kind]
    reaches = [radius * (inner if at % 2 else 1.0) for at in range(corners)]
    points = [around(center, r, turn + 360 * at / corners) for at, r in enumerate(reaches)]
    if kind == "diamond":
        points = [(center[0] + 0.75 * (x - center[0]), y) for x, y in points]
    canvas.polygon(points, fill, INK)


def scattered(rng: Random, count: int, level: Level) -> list[tuple[Point, float]]:
    """Places that do not overlap, with their radii: cells of a grid, each moved a little."""
    across = max(1, math.ceil(math.sqrt(count)))
    if across > 1 or rng.random() < level.difficulty:
        across = max(across, 2)
    cells = rng.sample([(x, y) for x in range(across) for y in range(across)], count)
    size = 1 / across
    places = []
    for x, y in cells:
        radius = size * rng.uniform(0.3, 0.4)
        slack = 0.48 * size - radius
        middle = ((x + 0.5) * size, (y + 0.5) * size)
        moved = (middle[0] + rng.uniform(-slack, slack), middle[1] + rng.uniform(-slack, slack))
        places.append((moved, radius))
    return places


def counting(rng: Random, level: Level) -> Scene:
    """One figure is of another kind, so there is one more or less of the kind to count."""
    total = level.steps(4, 16)
    kind, *others = rng.sample(KINDS, len(KINDS))
    lower = rng.randrange(max(1, level.steps(3, 9)))
    kinds = [kind] * lower + [rng.choice(others) for _ in range(total - lower - 1)]
    swapped = rng.choice(others)
    figures = [(each, rng.choice(list(COLORS))) for each in [swapped, *kinds]]
    places = scattered(rng, total, level)
    more_first = rng.random() < 0.5

    def paint(canvas: Canvas, variant: int) -> None:
        for at, ((each, hue), (place, radius)) in enumerate(zip(figures, places, strict=True)):
            is_more = at == 0 and more_first == (variant == 0)
            figure(canvas, kind if is_more else each, place, radius, COLORS[hue])

    answers = (str(lower + more_first), str(lower + (not more_first)))
    return Scene(f"How many {kind}s are there?", answers, paint)


def arrows(rng: Random, level: Level) -> Scene:
    """The arrow of one colour points another way."""
    others = level.steps(0, 8)
    names = DIRECTIONS if level.difficulty >= 0.4 else DIRECTIONS[::2]
    couple = rng.sample(names, 2)
    if level.difficulty > 0.7:  # neighbours on the compass
        couple = list(two_of(rng, DIRECTIONS, 1))
    hues = rng.sample(list(COLORS), len(COLORS))
    places = scattered(rng, others + 1, level)
    rest = [(rng.choice(names), rng.choice(hues[1:])) for _ in range(others)]

    def paint(canvas: Canvas, variant: int) -> None:
        for (way, hue), (place, radius) in zip(
            [(couple[variant], hues[0]), *rest], places, strict=True
        ):
            turn = -90 + 45 * DIRECTIONS.index(way)
            ends = around(place, radius, turn + 180), around(place, radius, turn)
            canvas.arrow(*ends, COLORS[hue], 0.22 * radius)

    question = f"In which direction does the {hues[0]} arrow point?"
    return Scene(question, (couple[0], couple[1]), paint)


FAMILIES = (
    Family(name="shapes", domain="natural", least_side=56, compose=shapes),
    Family(name="colors", domain="natural", least_side=56, compose=colors),
    Family(name="counting", domain="natural", least_side=56, compose=counting),
    Family(name="arrows", domain="natural", least_side=56, compose=arrows),
)
