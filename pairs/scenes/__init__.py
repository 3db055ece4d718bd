"""Pairs drawn by program: one decisive region differs; the answers are known by construction."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from PIL import ImageChops

from contextrl.pairs.errors import PairsError
from contextrl.pairs.scenes import (
    charts,
    figures,
    geometry,
    meters,
    plots,
    puzzles,
    tables,
    textures,
)
from contextrl.pairs.scenes.canvas import Canvas, paper
from contextrl.pairs.scenes.types import Family, Level, ScenePair
from contextrl.pairs.types import Box

__all__ = ["FAMILIES", "VERSION", "Family", "ScenePair", "chosen", "draw_pair", "side_of"]

VERSION = 2
"""Another number where the same seed draws another pair."""
PATCH = 28
"""Sides are multiples of it: the pixels of one image token of the Qwen-VL models."""
LARGEST_SIDE = 448

_MODULES = (charts, plots, geometry, tables, meters, figures, puzzles, textures)
FAMILIES: Mapping[str, Family] = {
    family.name: family for module in _MODULES for family in module.FAMILIES
}


def draw_pair(
    family: str, seed: int, difficulty: float = 0.5, *, side: int | None = None
) -> ScenePair:
    """The same pair for the same arguments, in every process. `side` in pixels changes no answer.

    Raises:
        PairsError: no such family, or a side at which it cannot be read.
    """
    kind = _known(family)
    side = side_of(kind, difficulty) if side is None else side
    if side < kind.least_side:
        raise PairsError(
            f"expected {family} with a side of at least {kind.least_side} pixels, found {side}"
        )
    rng = Random(f"{VERSION}/{family}/{seed}/{difficulty:.6f}")  # text is hashed alike everywhere
    background = paper(rng)
    scene = kind.compose(rng, Level(difficulty))
    images = []
    for variant in (0, 1):
        canvas = Canvas(side, background)
        scene.paint(canvas, variant)
        images.append(canvas.image())
    changed = ImageChops.difference(*images).getbbox()
    if changed is None or scene.answers[0] == scene.answers[1]:
        raise PairsError(f"{family}, seed {seed}: expected two images, found one twice")
    left, top, right, bottom = changed
    return ScenePair(
        family=family,
        seed=seed,
        difficulty=difficulty,
        question=scene.question,
        answer_positive=scene.answers[0],
        answer_negative=scene.answers[1],
        image_positive=images[0],
        image_negative=images[1],
        box=Box(left=left, top=top, right=right, bottom=bottom),
    )


def chosen(families: str) -> tuple[str, ...]:
    """Of a comma-separated list; all of them for an empty one. Raises `PairsError`."""
    names = tuple(name.strip() for name in families.split(",")) if families else tuple(FAMILIES)
    return tuple(_known(name).name for name in names)


def _known(name: str) -> Family:
    if name not in FAMILIES:
        raise PairsError(
            f"expected a family of scenes, found {name!r}; there are {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def side_of(family: Family, difficulty: float) -> int:
    """Pixels: from the family's least at difficulty 0 to `LARGEST_SIDE` at 1."""
    side = family.least_side + difficulty * (LARGEST_SIDE - family.least_side)
    return PATCH * round(side / PATCH)
