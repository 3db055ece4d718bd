"""Images -> vectors: a local one for tests, or a model in this process.

Near in embedding space means alike to the eye and in meaning; only a model gives the second.
`embed_server.py` asks a model on a server.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL.Image import Resampling

from contextrl.pairs.errors import EmbeddingError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Vectors = NDArray[np.float32]

QWEN = "Qwen/Qwen3-VL-Embedding-8B"
"""What the paper retrieves with."""
INSTRUCTION = "Represent the user's input."
"""What that model is told about whatever is to be found again, as its own code does."""
MAX_PIXELS = 1800 * 32 * 32
"""Its budget for one image; more is scaled down by its own code, too."""


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Vectors
    """[images, width], of length 1; zeros for an image that was refused."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Which of the images have no vector, and why."""


class Embedder(Protocol):
    name: str
    """Names all that a vector depends on: those of different names are never compared."""

    def embed(self, images: Sequence[Image]) -> Embedded:
        """Raises `EmbeddingError` when no image could be embedded whatever it shows."""
        ...


class PixelEmbedder:
    """A thumbnail and a colour histogram, centred: knows what an image looks like, not what it is.

    For tests and for sets of one layout, where near in looks is near in meaning.
    """

    def __init__(self, cells: int = 16) -> None:
        self.name = f"pixels-{cells}"
        self._cells = cells

    def embed(self, images: Sequence[Image]) -> Embedded:
        return Embedded(unit_rows(np.stack([self._one(image) for image in images])))

    def _one(self, image: Image) -> Vectors:
        size = (self._cells, self._cells)
        small = np.asarray(image.resize(size, Resampling.BOX), np.float32) / 255
        colors = np.asarray(image.histogram(), np.float32).reshape(3, 16, 16).sum(axis=2)
        shares = np.sqrt(colors / colors.sum(axis=1, keepdims=True))
        return np.concatenate([(small - small.mean()).ravel(), 0.5 * shares.ravel()])


class SentenceTransformersEmbedder:
    """A model of the hub in this process, e.g. `QWEN`. Its own code is never run."""

    def __init__(
        self,
        model: str = QWEN,
        *,
        device: str | None = None,
        instruction: str = INSTRUCTION,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """`instruction` is empty for a model that takes none."""
        try:
            import sentence_transformers
        except ImportError as error:
            raise EmbeddingError(
                "expected the package `sentence-transformers` to embed here, found none; "
                "run: pip install 'contextrl[embed]', or name a server with --base-url"
            ) from error
        self.name = embedder_name(model, "in process", instruction, max_pixels)
        self._prompt = {"prompt": instruction} if instruction else {}
        self._max_pixels = max_pixels
        self._model: Any = sentence_transformers.SentenceTransformer(
            model, device=device, trust_remote_code=False
        )

    def embed(self, images: Sequence[Image]) -> Embedded:
        found = self._model.encode(
            [scaled_down(image, self._max_pixels) for image in images],
            batch_size=len(images),
            convert_to_numpy=True,
            show_progress_bar=False,
            **self._prompt,
        )
        rows = np.asarray(found, np.float32)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        rows[bad] = 0.0
        reason = "expected a finite vector from the model, found none"
        return Embedded(unit_rows(rows), {int(at): reason for at in bad})


def embedder_name(model: str, backend: str, instruction: str, max_pixels: int) -> str:
    """One name for vectors that may be compared."""
    told = hashlib.sha256(instruction.encode()).hexdigest()[:8] if instruction else "none"
    return f"{model} ({backend}, instruction {told}, at most {max_pixels} pixels)"


def scaled_down(image: Image, max_pixels: int) -> Image:
    """The image itself when it has no more pixels."""
    width, height = image.size
    if width * height <= max_pixels:
        return image
    scale = math.sqrt(max_pixels / (width * height))
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, Resampling.BICUBIC)


def unit_rows(rows: Vectors) -> Vectors:
    """Each row at length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
