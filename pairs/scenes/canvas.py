"""A square page in units of its own side, drawn at twice its size and shrunk for smooth edges.

Coordinates run from (0, 0) at the top left to (1, 1), so that a family looks the same at any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

OVERSAMPLE = 2
Point = tuple[float, float]

COLORS = {
    "red": "#d62728",
    "blue": "#1f55c4",
    "green": "#1e8a2e",
    "orange": "#ff8c1a",
    "purple": "#8a35b8",
    "brown": "#7a4a21",
    "pink": "#f268b8",
    "cyan": "#17b5c9",
}
"""Names that a question may use, and what they look like: far apart from each other."""
INK = "#202020"
PALE = "#b4b4b4"
_PAPERS = ("#ffffff", "#fbfaf5", "#f4f7fb", "#f6f6f6", "#fdf6ec")


@lru_cache(maxsize=256)
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(pixels)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("expected Pillow with FreeType, found one without; install its wheel")
    return font


class Canvas:
    """Knows its side in pixels and nothing else of the scene."""

    def __init__(self, side: int, paper: str = "#ffffff") -> None:
        self.side = side
        self._scale = side * OVERSAMPLE
        self._image = Image.new("RGB", (self._scale, self._scale), paper)
        self._draw = ImageDraw.Draw(self._image)

    def image(self) -> Image.Image:
        return self._image.reduce(OVERSAMPLE)

    def line(self, points: Sequence[Point], color: str = INK, width: float = 0.01) -> None:
        self._draw.line([self._at(p) for p in points], color, self._width(width), joint="curve")

    def arrow(self, start: Point, end: Point, color: str = INK, width: float = 0.01) -> None:
        """Its tip is exactly `end`."""
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        reach = max(4 * width, 0.03)
        neck = (end[0] - reach * math.cos(angle), end[1] - reach * math.sin(angle))
        wings = [
            (
                end[0] - 1.3 * reach * math.cos(angle + turn),
                end[1] - 1.3 * reach * math.sin(angle + turn),
            )
            for turn in (0.45, -0.45)
        ]
        self.line([start, neck], color, width)
        self.polygon([end, *wings], color)

    def polygon(
        self,
        points: Sequence[Point],
        fill: str | None,
        outline: str | None = None,
        width: float = 0.008,
    ) -> None:
        places = [self._at(p) for p in points]
        self._draw.polygon(places, fill, outline, self._width(width) if outline else 1)

    def box(
        self,
        start: Point,
        end: Point,
        fill: str | None = None,
        outline: str | None = None,
        width: float = 0.008,
    ) -> None:
        corners = (*self._at(start), *self._at(end))
        self._draw.rectangle(corners, fill, outline, self._width(width) if outline else 1)

    def disc(
        self,
        center: Point,
        radius: float,
        fill: str | None,
        outline: str | None = None,
        width: float = 0.008,
    ) -> None:
        bounds = self._bounds(center, radius)
        self._draw.ellipse(bounds, fill, outline, self._width(width) if outline else 1)

    def wedge(
        self,
        center: Point,
        radius: float,
        start_deg: float,
        end_deg: float,
        fill: str,
        outline: str | None = None,
        width: float = 0.008,
    ) -> None:
        """Clockwise from `start_deg`; 0 points right, 90 down."""
        bounds = self._bounds(center, radius)
        self._draw.pieslice(
            bounds, start_deg, end_deg, fill, outline, self._width(width) if outline else 1
        )

    def arc(
        self,
        center: Point,
        radius: float,
        start_deg: float,
        end_deg: float,
        color: str = INK,
        width: float = 0.01,
    ) -> None:
        bounds = self._bounds(center, radius)
        self._draw.arc(bounds, start_deg, end_deg, color, self._width(width))

    def text(
        self, place: Point, text: str, size: float, color: str = INK, anchor: str = "mm"
    ) -> None:
        """`size` is the height of a line; `anchor` as in Pillow: m middle, l left, r right, ..."""
        font = _font(max(6, round(size * self._scale)))
        self._draw.text(self._at(place), text, color, font, anchor)

    def _at(self, point: Point) -> Point:
        return point[0] * self._scale, point[1] * self._scale

    def _width(self, width: float) -> int:
        return max(OVERSAMPLE, round(width * self._scale))

    def _bounds(self, center: Point, radius: float) -> tuple[float, float, float, float]:
        x, y = self._at(center)
        reach = radius * self._scale
        return x - reach, y - reach, x + reach, y + reach


def paper(rng: Random) -> str:
    return rng.choice(_PAPERS)


def around(center: Point, radius: float, degrees: float) -> Point:
    """The point of a circle; 0 is right, 90 down, as Pillow counts."""
    angle = math.radians(degrees)
    return center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)
