"""Copies of one picture: scaled, encoded again or toned, and so with other pixels.

A perceptual hash alone will not do: it is blind to exactly what differs between two scenes of one
layout (a needle, a digit, a label). What it holds for alike must look alike cell by cell, too, and
two images that answer one question differently are never one picture: they may be a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Resampling

from contextrl.pairs.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Numbers = NDArray[np.int64]

THUMB_SIDE = 32
THUMB_BYTES = 3 * THUMB_SIDE**2
MOST_BITS = 4
"""Of 64 of the hash."""
MOST_SHIFT = 6
"""Of 255, in any cell of the thumbnail. Of 460 drawn scenes, 159 are alike to the hash with their
own twin; the least decisive change among them moves a cell by 7. About half of the JPEG copies of
quality 85 move none by more than 6: a copy too many costs less than a good pair lost."""


def look_of(image: Image) -> int:
    """64 bits that stay nearly the same when an image is scaled, encoded again or toned."""
    try:
        import imagehash
    except ImportError as error:
        raise SourceError(
            "expected the package `imagehash` to find near-duplicates, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    bits = imagehash.phash(image).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumb_of(image: Image) -> NDArray[np.uint8]:
    """[THUMB_BYTES]: the mean colour of each cell."""
    small = image.resize((THUMB_SIDE, THUMB_SIDE), Resampling.BOX)
    return np.asarray(small, np.uint8).reshape(THUMB_BYTES)


class Copies:
    """Which images show one picture: each has a leader, the one with the lowest number."""

    def __init__(self, looks: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> None:
        """One row an image."""
        self._looks = looks
        self._thumbs = thumbs
        self.leader: Numbers = np.arange(len(looks))

    def join(self, images: Sequence[int]) -> None:
        """They are known to show the same pixels."""
        self.leader[np.asarray(images)] = min(images)

    def find_among(self, first: Numbers, second: Numbers, agree: Callable[[int, int], bool]) -> int:
        """How many of these couples were joined; copies are near, so ask neighbours.

        `agree` is asked last, of two leaders: when it says so, the first leads both from then on.
        """
        bits = np.bitwise_count(self._looks[first] ^ self._looks[second])
        joined = 0
        for low, high in zip(first[bits <= MOST_BITS], second[bits <= MOST_BITS], strict=True):
            a, b = sorted((self._leader_of(int(low)), self._leader_of(int(high))))
            # Leader against leader, lest a chain of small steps joins two scenes.
            if a != b and self._alike(a, b) and agree(a, b):
                self.leader[b] = a
                joined += 1
        self.leader = np.array([self._leader_of(at) for at in self.leader], np.int64)
        return joined

    def _leader_of(self, image: int) -> int:
        while self.leader[image] != image:
            image = int(self.leader[image])
        return image

    def _alike(self, first: int, second: int) -> bool:
        if int(self._looks[first] ^ self._looks[second]).bit_count() > MOST_BITS:
            return False
        shift = self._thumbs[first].astype(np.int16) - self._thumbs[second]
        return int(np.abs(shift).max()) <= MOST_SHIFT
