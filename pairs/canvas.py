"""For image models that draw in a few sizes only: padded to one of them, and cut back after."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL import Image

from contextrl.envs.types import Record
from contextrl.pairs.types import Box

Size = tuple[int, int]
PADDING = "white"


class Canvas(Record):
    """What the image model is shown."""

    width: int
    height: int
    image: Box
    """Where the original lies on it, scaled; padding is around."""

    def padded(self, original: Image.Image) -> Image.Image:
        at = self.image
        size = (at.right - at.left, at.bottom - at.top)
        page = Image.new("RGB", (self.width, self.height), PADDING)
        page.paste(original.resize(size, Image.Resampling.LANCZOS), (at.left, at.top))
        return page

    def cut_back(self, reply: Image.Image, size: Size) -> Image.Image:
        """The original's region of the reply, at the original's size."""
        at, x, y = self.image, reply.width / self.width, reply.height / self.height
        region = (at.left * x, at.top * y, at.right * x, at.bottom * y)
        return reply.resize(size, Image.Resampling.LANCZOS, box=region)


def canvas_for(image: Size, sizes: Sequence[Size]) -> Canvas | None:
    """Of `sizes` the one that the image fills best; None when there are none to choose from."""
    if not sizes:
        return None

    def scale(size: Size) -> float:
        return min(size[0] / image[0], size[1] / image[1])

    def filled(size: Size) -> float:
        return scale(size) ** 2 * image[0] * image[1] / (size[0] * size[1])

    best = max(sizes, key=lambda size: (round(filled(size), 3), -size[0] * size[1]))
    width = max(1, min(best[0], round(image[0] * scale(best))))
    height = max(1, min(best[1], round(image[1] * scale(best))))
    left, top = (best[0] - width) // 2, (best[1] - height) // 2
    box = Box(left=left, top=top, right=left + width, bottom=top + height)
    return Canvas(width=best[0], height=best[1], image=box)


def read_sizes(text: str) -> tuple[Size, ...]:
    """`1024x1024,1536x1024`. Raises `ValueError`."""
    sizes = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", part)
        if found is None:
            raise ValueError(f"expected sizes such as 1024x1024,1536x1024, found {part!r}")
        sizes.append((int(found[1]), int(found[2])))
    return tuple(sizes)
