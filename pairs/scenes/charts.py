"""Charts: a value is read off an axis."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, PALE, Canvas
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

_LETTERS = "ABCDEFGH"


def bars(rng: Random, level: Level) -> Scene:
    """One bar of several has another height."""
    count = level.steps(2, 8)
    target = rng.randrange(count)
    heights = [rng.randint(1, 9) for _ in range(count)]
    couple = two_of(rng, range(1, 10), level.steps(4, 1), spread=2)
    colors = rng.sample(list(COLORS.values()), count)

    def paint(canvas: Canvas, variant: int) -> None:
        _value_axis(canvas)
        width = 0.84 / count
        for at, color in enumerate(colors):
            height = couple[variant] if at == target else heights[at]
            left = 0.14 + width * (at + 0.14)
            canvas.box((left, _y(height)), (left + 0.72 * width, _y(0)), color)
            canvas.text((left + 0.36 * width, 0.93), _LETTERS[at], 0.09)

    return Scene(
        f"What is the height of bar {_LETTERS[target]}?",
        (str(couple[0]), str(couple[1])),
        paint,
    )


def _y(value: float) -> float:
    """Of a value from 0 to 10 on the axis that `_value_axis` draws."""
    return 0.87 - 0.082 * value


def _value_axis(canvas: Canvas) -> None:
    for value in range(11):
        canvas.line([(0.14, _y(value)), (0.98, _y(value))], PALE, 0.003)
        if value % 2 == 0:
            canvas.text((0.11, _y(value)), str(value), 0.07, anchor="rm")
    canvas.line([(0.14, _y(10)), (0.14, _y(0)), (0.98, _y(0))], INK, 0.008)


FAMILIES = (Family(name="bars", domain="chart", least_side=84, compose=bars),)
