"""Geometry: a label differs, and with it what follows. As in textbooks, not drawn to scale."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, Canvas, Point, around
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

# Legs of right triangles with whole sides, by the leg that stays: other leg -> hypotenuse.
_RIGHT = {
    8: {6: 10, 15: 17},
    12: {5: 13, 9: 15, 16: 20, 35: 37},
    15: {8: 17, 20: 25, 36: 39},
    24: {7: 25, 10: 26, 18: 30, 32: 40},
}


def third_angle(rng: Random, level: Level) -> Scene:
    step = level.steps(10, 1)
    known = step * rng.randint(30 // step, 80 // step)
    couple = two_of(rng, range(30, 91, step), level.steps(3, 2), spread=2)
    corners = _triangle(rng)
    turned = rng.random() < 0.5  # which of the two labels is the decisive one

    def paint(canvas: Canvas, variant: int) -> None:
        first, second = (couple[variant], known) if turned else (known, couple[variant])
        _outline(canvas, corners, "ABC")
        _inside(canvas, corners, 0, f"{first}\u00b0")
        _inside(canvas, corners, 1, f"{second}\u00b0")
        _inside(canvas, corners, 2, "?")

    answers = (str(180 - known - couple[0]), str(180 - known - couple[1]))
    return Scene("How many degrees is the angle at C?", answers, paint)


def hypotenuse(rng: Random, level: Level) -> Scene:
    fixed = rng.choice(list(_RIGHT))
    couple = rng.sample(list(_RIGHT[fixed]), 2)
    flipped = rng.random() < 0.5

    def paint(canvas: Canvas, variant: int) -> None:
        across, down = (fixed, couple[variant]) if flipped else (couple[variant], fixed)
        corners = ((0.22, 0.14), (0.22, 0.8), (0.9, 0.8))
        _outline(canvas, corners, "ABC")
        canvas.line([(0.22, 0.73), (0.29, 0.73), (0.29, 0.8)], INK, 0.006)
        canvas.text((0.12, 0.47), str(down), 0.1)
        canvas.text((0.54, 0.9), str(across), 0.1)

    answers = (str(_RIGHT[fixed][couple[0]]), str(_RIGHT[fixed][couple[1]]))
    return Scene("What is the length of side AC?", answers, paint)


def rectangle(rng: Random, level: Level) -> Scene:
    most = level.steps(6, 15)
    fixed = rng.randint(2, most)
    couple = two_of(rng, range(2, most + 1), level.steps(2, 1), spread=2)
    area = rng.random() < 0.5
    flipped = rng.random() < 0.5
    fill = rng.choice(("#dfeaf7", "#e8f3df", "#f9ecd8"))

    def paint(canvas: Canvas, variant: int) -> None:
        across, down = (fixed, couple[variant]) if flipped else (couple[variant], fixed)
        canvas.box((0.2, 0.24), (0.92, 0.76), fill, INK, 0.012)
        canvas.text((0.56, 0.85), str(across), 0.1)
        canvas.text((0.1, 0.5), str(down), 0.1)

    sizes = [fixed * each if area else 2 * (fixed + each) for each in couple]
    what = "area" if area else "perimeter"
    return Scene(f"What is the {what} of the rectangle?", (str(sizes[0]), str(sizes[1])), paint)


def straight_line(rng: Random, level: Level) -> Scene:
    step = level.steps(10, 1)
    couple = two_of(rng, range(20, 161, step), level.steps(4, 1), spread=2)
    lean = rng.uniform(55, 125)

    def paint(canvas: Canvas, variant: int) -> None:
        foot = (0.5, 0.72)
        canvas.line([(0.05, 0.72), (0.95, 0.72)], INK, 0.012)
        canvas.line([foot, around(foot, 0.6, -lean)], INK, 0.012)
        canvas.text(around(foot, 0.24, -0.5 * lean), f"{couple[variant]}\u00b0", 0.1)
        canvas.text(around(foot, 0.22, -90 - 0.5 * lean), "x", 0.1)

    answers = (str(180 - couple[0]), str(180 - couple[1]))
    return Scene("How many degrees is the angle x?", answers, paint)


def polygon(rng: Random, level: Level) -> Scene:
    sides = rng.choice((3, 4, 5, 6, 8))
    couple = two_of(rng, range(2, level.steps(8, 20)), level.steps(2, 1), spread=2)
    color = rng.choice(list(COLORS.values()))
    turn = 90 + 180 / sides  # a side lies at the bottom

    def paint(canvas: Canvas, variant: int) -> None:
        corners = [around((0.5, 0.46), 0.38, turn + 360 * at / sides) for at in range(sides)]
        canvas.polygon(corners, "#ffffff", color, 0.02)
        canvas.text((0.5, 0.93), str(couple[variant]), 0.1)

    answers = (str(sides * couple[0]), str(sides * couple[1]))
    return Scene("All sides are equally long. What is the perimeter?", answers, paint)


_KINDS = (third_angle, hypotenuse, rectangle, straight_line, polygon)


def geometry(rng: Random, level: Level) -> Scene:
    """One of the figures above; easy ones leave the triangles out."""
    kinds = _KINDS if level.difficulty >= 0.3 else _KINDS[2:]
    return rng.choice(kinds)(rng, level)


def _triangle(rng: Random) -> tuple[Point, Point, Point]:
    return (
        (rng.uniform(0.12, 0.18), rng.uniform(0.78, 0.84)),
        (rng.uniform(0.82, 0.88), rng.uniform(0.78, 0.84)),
        (rng.uniform(0.35, 0.65), rng.uniform(0.12, 0.18)),
    )


def _outline(canvas: Canvas, corners: tuple[Point, Point, Point], names: str) -> None:
    canvas.line([*corners, corners[0]], INK, 0.012)
    for corner, name in zip(corners, names, strict=True):
        canvas.text(_towards(corner, _middle(corners), -0.085), name, 0.085)


def _inside(canvas: Canvas, corners: tuple[Point, Point, Point], at: int, text: str) -> None:
    canvas.text(_towards(corners[at], _middle(corners), 0.19), text, 0.075)


def _middle(corners: tuple[Point, Point, Point]) -> Point:
    return sum(x for x, _ in corners) / 3, sum(y for _, y in corners) / 3


def _towards(start: Point, end: Point, distance: float) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx * dx + dy * dy) ** 0.5
    return start[0] + distance * dx / length, start[1] + distance * dy / length


FAMILIES = (Family(name="geometry", domain="geometry", least_side=84, compose=geometry),)
