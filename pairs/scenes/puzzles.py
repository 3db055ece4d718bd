"""Scenes to follow with the eye: mazes, circuits, chains of arrows, dice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random

from contextrl.pairs.scenes.canvas import COLORS, INK, Canvas, Point, around
from contextrl.pairs.scenes.types import Family, Level, Scene, two_of

Cell = tuple[int, int]
Passage = frozenset[Cell]


def maze(rng: Random, level: Level) -> Scene:
    """Where the ways to the exits part, a wall closes one of them."""
    size = level.steps(3, 8)
    passages = _carve(rng, size)
    cells = [(x, y) for x in range(size) for y in range(size)]
    while True:
        start, *exits = rng.sample(cells, 3)
        ways = [_way(passages, start, exit_) for exit_ in exits]
        shared = 0
        while ways[0][shared : shared + 1] == ways[1][shared : shared + 1] != []:
            shared += 1
        if min(map(len, ways)) > shared:  # neither exit lies on the way to the other
            break
    # Closing the way to the OTHER exit makes each variant's exit the one to reach.
    closed = [frozenset(ways[1 - variant][shared - 1 : shared + 1]) for variant in (0, 1)]
    letters = "AB" if rng.random() < 0.5 else "BA"
    color = rng.choice(list(COLORS.values()))

    def paint(canvas: Canvas, variant: int) -> None:
        unit = 0.92 / size
        canvas.box((0.04, 0.04), (0.96, 0.96), None, INK, 0.016)
        open_ = passages - {closed[variant]}
        for x, y in cells:
            left, top = 0.04 + unit * x, 0.04 + unit * y
            if x + 1 < size and frozenset({(x, y), (x + 1, y)}) not in open_:
                canvas.line([(left + unit, top), (left + unit, top + unit)], INK, 0.016)
            if y + 1 < size and frozenset({(x, y), (x, y + 1)}) not in open_:
                canvas.line([(left, top + unit), (left + unit, top + unit)], INK, 0.016)
        for letter, (x, y) in zip(letters, exits, strict=True):
            canvas.text((0.04 + unit * (x + 0.5), 0.04 + unit * (y + 0.5)), letter, 0.7 * unit)
        place = (0.04 + unit * (start[0] + 0.5), 0.04 + unit * (start[1] + 0.5))
        canvas.disc(place, 0.26 * unit, color)

    question = "Which letter can be reached from the point without crossing a wall?"
    return Scene(question, (letters[0], letters[1]), paint)


def _carve(rng: Random, size: int) -> frozenset[Passage]:
    """Passages such that exactly one way joins any two cells."""
    seen = {(0, 0)}
    trail = [(0, 0)]
    passages = set()
    while trail:
        x, y = trail[-1]
        near = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        free = [c for c in near if c not in seen and min(c) >= 0 and max(c) < size]
        if not free:
            trail.pop()
            continue
        cell = rng.choice(free)
        passages.add(frozenset({(x, y), cell}))
        seen.add(cell)
        trail.append(cell)
    return frozenset(passages)


def _way(passages: frozenset[Passage], start: Cell, end: Cell) -> list[Cell]:
    """Cells from start to end, both included."""
    trails = [[start]]
    for trail in trails:
        if trail[-1] == end:
            return trail
        trails += [[*trail, cell] for cell in _neighbours(passages, trail[-1]) if cell not in trail]
    raise AssertionError("a carved maze joins all its cells")


def _neighbours(passages: frozenset[Passage], cell: Cell) -> Iterator[Cell]:
    x, y = cell
    for other in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
        if frozenset({cell, other}) in passages:
            yield other


def circuit(rng: Random, level: Level) -> Scene:
    """One switch decides whether current reaches the lamp."""
    branches, length = level.steps(1, 4), level.steps(1, 3)
    closed = [[rng.random() < 0.6 for _ in range(length)] for _ in range(branches)]
    for switches in closed:  # every other branch is broken somewhere
        if all(switches):
            switches[rng.randrange(length)] = False
    branch, at = rng.randrange(branches), rng.randrange(length)
    closed[branch] = [True] * length
    first_on = rng.random() < 0.5
    color = COLORS[rng.choice(("blue", "brown", "purple", "green"))]

    def paint(canvas: Canvas, variant: int) -> None:
        on = first_on == (variant == 0)
        heights = [0.12 + 0.5 * (number + 0.5) / branches for number in range(branches)]
        canvas.line([(0.12, heights[0]), (0.12, 0.85), (0.36, 0.85)], INK, 0.012)
        canvas.line([(0.88, heights[0]), (0.88, 0.85), (0.44, 0.85)], INK, 0.012)
        canvas.line([(0.36, 0.77), (0.36, 0.93)], INK, 0.012)
        canvas.line([(0.44, 0.81), (0.44, 0.89)], INK, 0.024)
        canvas.disc((0.66, 0.85), 0.07, "#ffffff", INK, 0.012)
        canvas.line([(0.615, 0.805), (0.705, 0.895)], INK, 0.01)
        canvas.line([(0.615, 0.895), (0.705, 0.805)], INK, 0.01)
        for number, (height, switches) in enumerate(zip(heights, closed, strict=True)):
            states = [on if (number, n) == (branch, at) else s for n, s in enumerate(switches)]
            _branch(canvas, height, states, color)

    answers = ("yes", "no") if first_on else ("no", "yes")
    return Scene("Is the circuit through the lamp closed, yes or no?", answers, paint)


def _branch(canvas: Canvas, height: float, states: list[bool], color: str) -> None:
    pitch = 0.76 / len(states)
    reach = min(0.11, 0.3 * pitch)
    for number, is_closed in enumerate(states):
        left, right = 0.12 + pitch * number, 0.12 + pitch * (number + 1)
        hinge, contact = (left + right) / 2 - reach, (left + right) / 2 + reach
        canvas.line([(left, height), (hinge, height)], INK, 0.012)
        canvas.line([(contact, height), (right, height)], INK, 0.012)
        tip = (contact, height) if is_closed else around((hinge, height), 2 * reach, -35)
        canvas.line([(hinge, height), tip], color, 0.02)
        for x in (hinge, contact):
            canvas.disc((x, height), 0.016, INK)


def network(rng: Random, level: Level) -> Scene:
    """The last arrow of a chain points elsewhere."""
    count = level.steps(3, 7)
    hops = level.steps(1, 3)
    names = "ABCDEFG"[:count]
    order = rng.sample(range(count), count)
    chain, free = order[:hops], order[hops:]
    couple = rng.sample(free, 2)
    # Arrows off the chain are there to be confused with it; none leaves a possible end.
    loose = [node for node in free if node not in couple][: level.steps(0, 2)]
    rest = [(node, rng.choice([n for n in range(count) if n != node])) for node in loose]
    turn = rng.uniform(0, 360)
    color = rng.choice(list(COLORS.values()))
    steps = list(pairwise(chain))

    def paint(canvas: Canvas, variant: int) -> None:
        places = [around((0.5, 0.5), 0.38, turn + 360 * at / count) for at in range(count)]
        for start, end in [*rest, *steps, (chain[-1], couple[variant])]:
            tip = _short_of(places[end], places[start], 0.095)
            canvas.arrow(places[start], tip, color, 0.014)
        for name, place in zip(names, places, strict=True):
            canvas.disc(place, 0.08, "#ffffff", INK, 0.01)
            canvas.text(place, name, 0.1)

    follow = "1 arrow" if hops == 1 else f"{hops} arrows"
    question = f"Start at {names[chain[0]]} and follow {follow}. Where do you end?"
    return Scene(question, (names[couple[0]], names[couple[1]]), paint)


def _short_of(end: Point, start: Point, distance: float) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx * dx + dy * dy) ** 0.5
    return end[0] - distance * dx / length, end[1] - distance * dy / length


# Which of the nine places of a die hold a pip.
_PIPS = ("", "4", "08", "048", "0268", "02468", "023568")


def dice(rng: Random, level: Level) -> Scene:
    """One die shows another face."""
    count = level.steps(1, 6)
    faces = [rng.randint(1, 6) for _ in range(count)]
    at = rng.randrange(count)
    couple = two_of(rng, range(1, 7), level.steps(2, 1), spread=2)
    rest = sum(faces) - faces[at]
    across = 1 if count == 1 else (2 if count <= 4 else 3)
    color = rng.choice(("#ffffff", "#fff3c9", "#ffd9d9", "#d8ecff"))
    # Without these one die would be one of 120 images.
    size = rng.uniform(0.74, 0.84)
    shifts = [(rng.uniform(0, 1 - size), rng.uniform(0, 1 - size)) for _ in faces]

    def paint(canvas: Canvas, variant: int) -> None:
        unit = 0.96 / across
        side = size * unit
        for number, face in enumerate(faces):
            face = couple[variant] if number == at else face
            left = 0.02 + unit * (number % across + shifts[number][0])
            top = 0.02 + unit * (number // across + shifts[number][1])
            canvas.box((left, top), (left + side, top + side), color, INK, 0.012)
            for place in map(int, _PIPS[face]):
                pip = (
                    left + side * (0.22 + 0.28 * (place % 3)),
                    top + side * (0.22 + 0.28 * (place // 3)),
                )
                canvas.disc(pip, 0.1 * side, INK)

    question = "What number does the die show?" if count == 1 else "What is the sum of the dice?"
    return Scene(question, (str(rest + couple[0]), str(rest + couple[1])), paint)


FAMILIES = (
    Family(name="maze", domain="puzzle", least_side=84, compose=maze),
    Family(name="circuit", domain="science", least_side=84, compose=circuit),
    Family(name="network", domain="puzzle", least_side=112, compose=network),
    Family(name="dice", domain="natural", least_side=56, compose=dice),
)
