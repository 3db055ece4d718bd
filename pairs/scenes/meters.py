"""Instruments: something points at a value, or shows it in segments."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, PALE, Canvas, Point, around
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of


def gauge(rng: Random, level: Level) -> Scene:
    """The needle of a dial stands at another value."""
    parts = level.steps(8, 20)
    unit = rng.choice([unit for unit in (1, 2, 5, 10) if unit * parts <= 100])
    couple = two_of(rng, range(parts + 1), level.steps(4, 1), spread=2)
    color = rng.choice(list(COLORS.values()))
    labelled = 2 if parts <= 12 else 4
    center = (0.5, 0.56)

    def degrees(value: float) -> float:
        return 150 + 240 * value / parts

    def paint(canvas: Canvas, variant: int) -> None:
        canvas.disc(center, 0.44, "#ffffff", INK, 0.012)
        for value in range(parts + 1):
            named = value % labelled == 0
            inner = around(center, 0.26 if named else 0.285, degrees(value))
            canvas.line([inner, around(center, 0.31, degrees(value))], INK, 0.008)
            if named:
                canvas.text(around(center, 0.37, degrees(value)), str(value * unit), 0.08)
        canvas.arrow(center, around(center, 0.275, degrees(couple[variant])), color, 0.02)
        canvas.disc(center, 0.035, INK)

    answers = (str(couple[0] * unit), str(couple[1] * unit))
    return Scene("What value does the needle show?", answers, paint)


def clock(rng: Random, level: Level) -> Scene:
    """A hand of the clock stands elsewhere: the hour hand of easy ones, the minute hand of hard."""
    minutes = range(0, 60, 30) if level.difficulty < 0.3 else range(0, 60, 5)
    if rng.random() < level.difficulty:
        hour = rng.randint(1, 12)
        first, second = two_of(rng, list(minutes), level.steps(3, 1), spread=2)
        times = ((hour, first), (hour, second))
    else:
        minute = rng.choice(minutes)
        first, second = two_of(rng, range(1, 13), level.steps(3, 1), spread=2)
        times = ((first, minute), (second, minute))
    color = rng.choice(list(COLORS.values()))

    def paint(canvas: Canvas, variant: int) -> None:
        center = (0.5, 0.5)
        canvas.disc(center, 0.47, "#ffffff", INK, 0.014)
        for tick in range(60):
            inner = 0.42 if tick % 5 else 0.4
            ends = [around(center, inner, 6 * tick), around(center, 0.45, 6 * tick)]
            canvas.line(ends, INK if tick % 5 == 0 else PALE, 0.01 if tick % 5 == 0 else 0.004)
        for number in range(1, 13):
            canvas.text(around(center, 0.335, 30 * number - 90), str(number), 0.085)
        hour, minute = times[variant]
        canvas.line([center, around(center, 0.39, 6 * minute - 90)], color, 0.016)
        canvas.line([center, around(center, 0.23, 30 * (hour + minute / 60) - 90)], INK, 0.03)
        canvas.disc(center, 0.03, INK)

    answers = (_time(times[0]), _time(times[1]))
    return Scene("What time does the clock show?", answers, paint)


def thermometer(rng: Random, level: Level) -> Scene:
    """The column has another height."""
    parts = level.steps(6, 20)
    unit = rng.choice((1, 2, 5))
    couple = two_of(rng, range(1, parts + 1), level.steps(3, 1), spread=2)
    left = rng.uniform(0.35, 0.5)
    color = COLORS[rng.choice(("red", "blue", "purple"))]
    named = 2 if parts <= 12 else 5
    lowest = -unit * named * rng.choice((0, 0, 1, 2))

    def y(value: float) -> float:
        return 0.78 - 0.7 * value / parts

    def paint(canvas: Canvas, variant: int) -> None:
        canvas.box((left - 0.045, 0.04), (left + 0.045, 0.86), "#ffffff", INK, 0.01)
        canvas.disc((left, 0.88), 0.085, color, INK, 0.01)
        canvas.box((left - 0.025, y(couple[variant])), (left + 0.025, 0.86), color)
        for value in range(parts + 1):
            reach = 0.13 if value % named == 0 else 0.09
            canvas.line([(left + 0.055, y(value)), (left + reach, y(value))], INK, 0.006)
            if value % named == 0:
                text = str(lowest + unit * value)
                canvas.text((left + 0.16, y(value)), text, 0.08, anchor="lm")

    answers = (str(lowest + unit * couple[0]), str(lowest + unit * couple[1]))
    return Scene("What temperature does the thermometer show?", answers, paint)


def number_line(rng: Random, level: Level) -> Scene:
    """The marked point lies elsewhere."""
    parts = level.steps(6, 20)
    start = rng.choice((-20, -10, -5, 0, 5, 10))
    couple = two_of(rng, range(parts + 1), level.steps(3, 1), spread=2)
    named = 2 if parts <= 12 else 5
    hue = rng.choice(list(COLORS))
    high = rng.uniform(0.35, 0.65)

    def paint(canvas: Canvas, variant: int) -> None:
        def place(value: float) -> float:
            return 0.08 + 0.84 * value / parts

        canvas.line([(0.03, high), (0.97, high)], INK, 0.01)
        for value in range(parts + 1):
            reach = 0.035 if value % named == 0 else 0.022
            canvas.line([(place(value), high - reach), (place(value), high + reach)], INK, 0.007)
            if value % named == 0:
                canvas.text((place(value), high + 0.09), str(start + value), 0.075)
        canvas.disc((place(couple[variant]), high), 0.03, COLORS[hue], INK, 0.005)

    answers = (str(start + couple[0]), str(start + couple[1]))
    return Scene(f"At which number is the {hue} point?", answers, paint)


# Segments of a digit: top, top left, top right, middle, bottom left, bottom right, bottom.
_SEGMENTS = (
    "abcefg",
    "cf",
    "acdeg",
    "acdfg",
    "bcdf",
    "abdfg",
    "abdefg",
    "acf",
    "abcdefg",
    "abcdfg",
)
_ENDS: dict[str, tuple[Point, Point]] = {
    "a": ((0, 0), (1, 0)),
    "b": ((0, 0), (0, 1)),
    "c": ((1, 0), (1, 1)),
    "d": ((0, 1), (1, 1)),
    "e": ((0, 1), (0, 2)),
    "f": ((1, 1), (1, 2)),
    "g": ((0, 2), (1, 2)),
}


def display(rng: Random, level: Level) -> Scene:
    """One digit of a seven-segment display is another; in hard ones by a single segment."""
    count = level.steps(1, 6)
    digits = [rng.randrange(10) for _ in range(count)]
    at = rng.randrange(count)
    lowest = 1 if at == 0 and count > 1 else 0
    digits[0] = max(digits[0], int(count > 1))
    most = level.steps(7, 1)
    couples = [
        (first, second)
        for first in range(lowest, 10)
        for second in range(lowest, 10)
        if 1 <= len(set(_SEGMENTS[first]) ^ set(_SEGMENTS[second])) <= most
    ]
    couple = rng.choice(couples)
    lit = rng.choice(("#38f04a", "#ff4a3a", "#ffb020", "#52c8ff"))

    def paint(canvas: Canvas, variant: int) -> None:
        canvas.box((0.02, 0.2), (0.98, 0.8), "#161616", "#555555", 0.014)
        pitch = 0.9 / count
        width = min(0.62 * pitch, 0.24)
        for number, digit in enumerate(digits):
            digit = couple[variant] if number == at else digit
            left = 0.05 + pitch * (number + 0.5) - width / 2
            for segment, ends in _ENDS.items():
                points = [(left + width * x, 0.5 + width * (y - 1) * 0.95) for x, y in ends]
                color = lit if segment in _SEGMENTS[digit] else "#2c2c2c"
                canvas.line(_shortened(points), color, 0.15 * width)

    answers = (_number(digits, at, couple[0]), _number(digits, at, couple[1]))
    return Scene("What number does the display show?", answers, paint)


def _shortened(points: list[Point]) -> list[Point]:
    """Leaves a gap at both ends, so that neighbouring segments do not run into each other."""
    (x0, y0), (x1, y1) = points
    dx, dy = 0.12 * (x1 - x0), 0.12 * (y1 - y0)
    return [(x0 + dx, y0 + dy), (x1 - dx, y1 - dy)]


def _number(digits: list[int], at: int, digit: int) -> str:
    return "".join(str(digit if number == at else each) for number, each in enumerate(digits))


def _time(time: tuple[int, int]) -> str:
    return f"{time[0]}:{time[1]:02d}"


FAMILIES = (
    Family(name="gauge", domain="science", least_side=84, compose=gauge),
    Family(name="clock", domain="natural", least_side=84, compose=clock),
    Family(name="thermometer", domain="science", least_side=84, compose=thermometer),
    Family(name="number-line", domain="math", least_side=112, compose=number_line),
    Family(name="display", domain="science", least_side=56, compose=display),
)
