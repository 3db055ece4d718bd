"""Instruments: something points at a value."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, Canvas, around
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of


def gauge(rng: Random, level: Level) -> Scene:
    """The needle of a dial stands at another value."""
    unit = rng.choice((1, 5, 10))
    parts = level.steps(8, 20)
    couple = two_of(rng, range(parts + 1), level.steps(4, 1), spread=2)
    color = rng.choice(list(COLORS.values()))
    labelled = max(2, parts // 5) if parts > 10 else 2
    center = (0.5, 0.56)

    def degrees(value: float) -> float:
        return 150 + 240 * value / parts

    def paint(canvas: Canvas, variant: int) -> None:
        canvas.disc(center, 0.43, "#ffffff", INK, 0.012)
        for value in range(parts + 1):
            long = value % labelled == 0
            inner = around(center, 0.35 if long else 0.38, degrees(value))
            canvas.line([inner, around(center, 0.41, degrees(value))], INK, 0.008)
            if long:
                canvas.text(around(center, 0.285, degrees(value)), str(value * unit), 0.07)
        canvas.arrow(center, around(center, 0.36, degrees(couple[variant])), color, 0.018)
        canvas.disc(center, 0.035, INK)

    return Scene(
        "What value does the needle show?",
        (str(couple[0] * unit), str(couple[1] * unit)),
        paint,
    )


FAMILIES = (Family(name="gauge", domain="science", least_side=84, compose=gauge),)
