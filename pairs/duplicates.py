"""Near-duplicates ACROSS pairs, by perceptual hash.

Never within a pair: the two images of a good pair are alike by design, often to the last bit of
such a hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contextrl.pairs.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image


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


class SeenCouples:
    """Couples of looks that were taken before."""

    def __init__(self, bits: int) -> None:
        """Two looks are one when they differ in at most `bits` of 64."""
        self._bits = bits
        self._taken: NDArray[np.uint64] = np.empty((1024, 2), np.uint64)
        self._count = 0

    def is_repeat(self, first: int, second: int) -> bool:
        """A couple taken before shows the same two pictures, in either order."""
        taken = self._taken[: self._count]
        here = np.array([first, second], np.uint64)
        alike = np.bitwise_count(taken[:, :, None] ^ here) <= self._bits  # [taken, its side, ours]
        straight = alike[:, 0, 0] & alike[:, 1, 1]
        crossed = alike[:, 0, 1] & alike[:, 1, 0]
        return bool((straight | crossed).any())

    def take(self, first: int, second: int) -> None:
        if self._count == len(self._taken):
            self._taken = np.concatenate([self._taken, np.empty_like(self._taken)])
        self._taken[self._count] = first, second
        self._count += 1
