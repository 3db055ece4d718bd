"""Features of images that were prepared not long ago.

The same image comes back: for the other order of its pair, the other question about it, the next
round of a warm-up. A processor takes a millisecond or more for an image, however small.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image
from torch import Tensor

MAX_BYTES = 2**26

Features = tuple[Tensor, Tensor]
"""Patches [P, D] and their grid [1, 3]."""


class FeatureMemory:
    """Those of the images that were asked for last, `MAX_BYTES` of them. Safe from many threads."""

    def __init__(self, make: Callable[[Image.Image], Features]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Features] = OrderedDict()
        self._bytes = 0

    def of(self, image: Image.Image) -> Features:
        """Not to be changed in place."""
        key = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        key += repr((image.size, image.mode)).encode()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        features = self._make(image)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = features
                self._bytes += features[0].nbytes
            while self._bytes > MAX_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][0].nbytes
        return features
