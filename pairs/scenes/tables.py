"""Cells of tables, receipts and coloured grids."""

from __future__ import annotations

from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, PALE, Canvas
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

_NAMES = ("Ana", "Bo", "Cem", "Dot", "Eli", "Fay", "Gus", "Hal")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_GOODS = ("Tea", "Milk", "Soap", "Rice", "Jam", "Salt", "Nuts", "Corn")


def table(rng: Random, level: Level) -> Scene:
    """One cell holds another number."""
    names = rng.sample(_NAMES, level.steps(2, 8))
    days = _DAYS[: level.steps(2, 6)]
    cells = [[rng.randint(1, 99) for _ in days] for _ in names]
    row, column = rng.randrange(len(names)), rng.randrange(len(days))
    couple = two_of(rng, range(1, 100), level.steps(30, 1), spread=20)
    band = rng.choice(("#e3ecf7", "#e6f2e4", "#f4e9dc", "#ececec"))

    def paint(canvas: Canvas, variant: int) -> None:
        width, height = 0.94 / (len(days) + 1), 0.94 / (len(names) + 1)
        size = min(0.1, 0.42 * width, 0.6 * height)
        canvas.box((0.03, 0.03), (0.97, 0.03 + height), band)
        for at, day in enumerate(days):
            canvas.text((0.03 + width * (at + 1.5), 0.03 + 0.5 * height), day, size)
        for down, name in enumerate(names):
            middle = 0.03 + height * (down + 1.5)
            canvas.text((0.03 + 0.5 * width, middle), name, size)
            for at in range(len(days)):
                value = couple[variant] if (down, at) == (row, column) else cells[down][at]
                canvas.text((0.03 + width * (at + 1.5), middle), str(value), size)
        for at in range(len(days) + 2):
            canvas.line([(0.03 + width * at, 0.03), (0.03 + width * at, 0.97)], INK, 0.004)
        for at in range(len(names) + 2):
            canvas.line([(0.03, 0.03 + height * at), (0.97, 0.03 + height * at)], INK, 0.004)

    question = f"What is the value of {names[row]} on {days[column]}?"
    return Scene(question, (str(couple[0]), str(couple[1])), paint)


def receipt(rng: Random, level: Level) -> Scene:
    """One price is another, so the total is, which is not printed."""
    goods = rng.sample(_GOODS, level.steps(2, 7))
    most = level.steps(4, 20)
    prices = [rng.randint(1, most) for _ in goods]
    at = rng.randrange(len(goods))
    couple = two_of(rng, range(1, most + 1), level.steps(2, 1), spread=2)
    rest = sum(prices) - prices[at]

    def paint(canvas: Canvas, variant: int) -> None:
        canvas.box((0.1, 0.02), (0.9, 0.98), "#ffffff", PALE, 0.006)
        canvas.text((0.5, 0.1), "RECEIPT", 0.09)
        canvas.line([(0.16, 0.17), (0.84, 0.17)], INK, 0.005)
        height = min(0.14, 0.76 / len(goods))
        for number, (name, price) in enumerate(zip(goods, prices, strict=True)):
            shown = couple[variant] if number == at else price
            middle = 0.2 + height * (number + 0.5)
            canvas.text((0.17, middle), name, min(0.095, 0.75 * height), anchor="lm")
            canvas.text((0.83, middle), f"${shown}", min(0.095, 0.75 * height), anchor="rm")

    answers = (f"${rest + couple[0]}", f"${rest + couple[1]}")
    return Scene("What is the total of all prices?", answers, paint)


def grid(rng: Random, level: Level) -> Scene:
    """One cell of a labelled board has another colour."""
    size = level.steps(2, 8)
    names = list(COLORS)
    cells = [[rng.choice(names) for _ in range(size)] for _ in range(size)]
    row, column = rng.randrange(size), rng.randrange(size)
    couple = rng.sample(names, 2)

    def paint(canvas: Canvas, variant: int) -> None:
        width = 0.84 / size
        for down in range(size):
            canvas.text((0.07, 0.13 + width * (down + 0.5)), str(down + 1), min(0.1, 0.8 * width))
            letter = "ABCDEFGH"[down]
            canvas.text((0.13 + width * (down + 0.5), 0.065), letter, min(0.1, 0.8 * width))
            for at in range(size):
                name = couple[variant] if (down, at) == (row, column) else cells[down][at]
                start = (0.13 + width * at, 0.13 + width * down)
                canvas.box(start, (start[0] + width, start[1] + width), COLORS[name], INK, 0.004)

    question = f"What color is cell {'ABCDEFGH'[column]}{row + 1}?"
    return Scene(question, (couple[0], couple[1]), paint)


FAMILIES = (
    Family(name="table", domain="table", least_side=84, compose=table),
    Family(name="receipt", domain="table", least_side=112, compose=receipt),
    Family(name="grid", domain="table", least_side=56, compose=grid),
)
