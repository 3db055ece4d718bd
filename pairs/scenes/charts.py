"""Charts: a value is read off an axis, or slices are compared."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, PALE, Canvas
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

_LETTERS = "ABCDEFGH"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug")
_LEFT, _RIGHT = 0.15, 0.97


def bars(rng: Random, level: Level) -> Scene:
    """One bar of several has another height."""
    count = level.steps(2, 8)
    target = rng.randrange(count)
    heights = [rng.randint(1, 9) for _ in range(count)]
    couple = two_of(rng, range(1, 10), level.steps(4, 1), spread=2)
    colors = rng.sample(list(COLORS.values()), count)

    def paint(canvas: Canvas, variant: int) -> None:
        _value_axis(canvas)
        width = (_RIGHT - _LEFT) / count
        for at, color in enumerate(colors):
            height = couple[variant] if at == target else heights[at]
            left = _LEFT + width * (at + 0.14)
            canvas.box((left, _y(height)), (left + 0.72 * width, _y(0)), color)
            canvas.text((left + 0.36 * width, 0.935), _LETTERS[at], 0.09)

    question = f"What is the height of bar {_LETTERS[target]}?"
    return Scene(question, (str(couple[0]), str(couple[1])), paint)


def lines(rng: Random, level: Level) -> Scene:
    """One point of one of several lines has another height."""
    months = level.steps(3, 8)
    hues = rng.sample(list(COLORS), level.steps(1, 4))
    series = [[rng.randint(1, 9) for _ in range(months)] for _ in hues]
    at = rng.randrange(months)
    couple = two_of(rng, range(1, 10), level.steps(4, 1), spread=2)

    def paint(canvas: Canvas, variant: int) -> None:
        _value_axis(canvas)
        step = (_RIGHT - _LEFT) / months
        xs = [_LEFT + step * (each + 0.5) for each in range(months)]
        for x, month in zip(xs, _MONTHS, strict=False):
            canvas.text((x, 0.935), month, min(0.085, 0.43 * step))
        # The line that is asked about comes last, so that no other hides its point.
        for number in reversed(range(len(hues))):
            values = list(series[number])
            if number == 0:
                values[at] = couple[variant]
            points = [(x, _y(value)) for x, value in zip(xs, values, strict=True)]
            canvas.line(points, COLORS[hues[number]], 0.014)
            for point in points:
                canvas.disc(point, 0.02, COLORS[hues[number]])

    question = f"What is the value of the {hues[0]} line in {_MONTHS[at]}?"
    return Scene(question, (str(couple[0]), str(couple[1])), paint)


def scatter(rng: Random, level: Level) -> Scene:
    """One point has another place in one coordinate."""
    size = level.steps(4, 9)
    hues = rng.sample(list(COLORS), 4)
    first, second = two_of(rng, range(1, size), level.steps(2, 1), spread=2)
    fixed = rng.randrange(1, size)
    across = rng.random() < 0.5
    couple = ((first, fixed), (second, fixed)) if across else ((fixed, first), (fixed, second))
    free = [(x, y) for x in range(1, size) for y in range(1, size) if (x, y) not in couple]
    others = rng.sample(free, min(level.steps(1, 14), len(free)))
    rest = [(place, rng.choice(hues[1:])) for place in others]

    def paint(canvas: Canvas, variant: int) -> None:
        step = 0.82 / size
        for value in range(size + 1):
            place = 0.13 + step * value
            canvas.line([(place, 0.05), (place, 0.87)], PALE, 0.003)
            canvas.line([(0.13, 0.05 + step * value), (0.95, 0.05 + step * value)], PALE, 0.003)
            canvas.text((place, 0.935), str(value), 0.075)
            canvas.text((0.09, 0.87 - step * value), str(value), 0.075, anchor="rm")
        canvas.line([(0.13, 0.05), (0.13, 0.87), (0.95, 0.87)], INK, 0.008)
        for (x, y), hue in [*rest, (couple[variant], hues[0])]:
            canvas.disc((0.13 + step * x, 0.87 - step * y), 0.026, COLORS[hue], INK, 0.004)

    question = f"What are the coordinates of the {hues[0]} point?"
    return Scene(question, (_point(couple[0]), _point(couple[1])), paint)


def pie(rng: Random, level: Level) -> Scene:
    """The border between the two largest slices moves, so that the other one is the largest."""
    count = level.steps(2, 6)
    hues = rng.sample(list(COLORS), count)
    edge = level.between(0.16, 0.05) / count
    weights = [rng.uniform(0.45, 0.8) for _ in range(count)]
    weights[0] = weights[1] = 1.0
    shares = [weight / sum(weights) for weight in weights]
    turn = rng.uniform(0, 360)

    def paint(canvas: Canvas, variant: int) -> None:
        sizes = list(shares)
        sizes[variant] += edge
        sizes[1 - variant] -= edge
        start = turn
        for hue, size in zip(hues, sizes, strict=True):
            end = start + 360 * size
            canvas.wedge((0.5, 0.5), 0.44, start, end, COLORS[hue], "#ffffff")
            start = end

    # Which of the two comes first was drawn with `hues`: a fair coin.
    return Scene("Which slice is the largest?", (hues[0], hues[1]), paint)


def _point(place: tuple[int, int]) -> str:
    return f"({place[0]}, {place[1]})"


def _y(value: float) -> float:
    """Of a value from 0 to 10 on the axis that `_value_axis` draws."""
    return 0.87 - 0.082 * value


def _value_axis(canvas: Canvas) -> None:
    for value in range(11):
        canvas.line([(_LEFT, _y(value)), (_RIGHT, _y(value))], PALE, 0.003)
        if value % 2 == 0:
            canvas.text((_LEFT - 0.03, _y(value)), str(value), 0.075, anchor="rm")
    canvas.line([(_LEFT, _y(10)), (_LEFT, _y(0)), (_RIGHT, _y(0))], INK, 0.008)


FAMILIES = (
    Family(name="bars", domain="chart", least_side=84, compose=bars),
    Family(name="lines", domain="chart", least_side=112, compose=lines),
    Family(name="scatter", domain="chart", least_side=84, compose=scatter),
    Family(name="pie", domain="chart", least_side=56, compose=pie),
)
