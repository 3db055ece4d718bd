"""Images -> vectors: a local one for tests, a model in this process, or a server.

Near in embedding space means alike to the eye and in meaning; only a model gives the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import requests
from PIL.Image import Resampling

from contextrl.pairs.endpoints import data_url
from contextrl.pairs.errors import EmbeddingError
from contextrl.pairs.images import png_file
from contextrl.pairs.patience import Patience

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    Vectors = NDArray[np.float32]

QWEN = "Qwen/Qwen3-VL-Embedding-8B"
"""What the paper retrieves with."""


class Embedder(Protocol):
    name: str
    """Names model and settings: vectors of different names are never compared."""

    def embed(self, images: Sequence[Image]) -> Vectors:
        """One row an image, of length 1. Raises `EmbeddingError`."""
        ...


class PixelEmbedder:
    """A thumbnail and a colour histogram, centred: knows what an image looks like, not what it is.

    For tests and for sets of one layout, where near in looks is near in meaning.
    """

    def __init__(self, cells: int = 16) -> None:
        self.name = f"pixels-{cells}"
        self._cells = cells

    def embed(self, images: Sequence[Image]) -> Vectors:
        return unit_rows(np.stack([self._one(image) for image in images]))

    def _one(self, image: Image) -> Vectors:
        size = (self._cells, self._cells)
        small = np.asarray(image.resize(size, Resampling.BOX), np.float32) / 255
        colors = np.asarray(image.histogram(), np.float32).reshape(3, 16, 16).sum(axis=2)
        shares = np.sqrt(colors / colors.sum(axis=1, keepdims=True))
        return np.concatenate([(small - small.mean()).ravel(), 0.5 * shares.ravel()])


class SentenceTransformersEmbedder:
    """A model of the hub in this process, e.g. `QWEN`. Its own code is never run."""

    def __init__(self, model: str = QWEN, *, device: str | None = None) -> None:
        try:
            import sentence_transformers
        except ImportError as error:
            raise EmbeddingError(
                "expected the package `sentence-transformers` to embed here, found none; "
                "run: pip install 'contextrl[embed]', or name a server with --base-url"
            ) from error
        self.name = model
        self._model: Any = sentence_transformers.SentenceTransformer(
            model, device=device, trust_remote_code=False
        )

    def embed(self, images: Sequence[Image]) -> Vectors:
        found = self._model.encode(
            list(images), batch_size=len(images), convert_to_numpy=True, show_progress_bar=False
        )
        return unit_rows(np.asarray(found, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    model: str
    base_url: str
    """Ends in `/v1`."""
    api_key: str | None = None
    instruction: str = "Represent the given image."
    timeout_s: float = 120.0
    tries: int = 5
    first_pause_s: float = 1.0
    concurrency: int = 8


class ServerEmbedder:
    """vLLM's `/v1/embeddings` for images: one chat message with one image a request."""

    def __init__(self, settings: ServerSettings) -> None:
        self.name = settings.model
        self._settings = settings
        self._patience = Patience(settings.tries, settings.first_pause_s)
        self._headers = {"Authorization": f"Bearer {settings.api_key or 'none'}"}

    def embed(self, images: Sequence[Image]) -> Vectors:
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            rows = list(pool.map(self._patiently, images))
        if len({len(row) for row in rows}) != 1 or not np.isfinite(rows).all():
            raise EmbeddingError(
                f"{self.name}: expected finite vectors of one length, found others; "
                "does the server serve an embedding model?"
            )
        return unit_rows(np.asarray(rows, np.float32))

    def _patiently(self, image: Image) -> list[float]:
        url = data_url(png_file(image))
        body = {
            "model": self._settings.model,
            "encoding_format": "float",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": url}},
                        {"type": "text", "text": self._settings.instruction},
                    ],
                }
            ],
        }
        passing = (_PassingError, requests.ConnectionError, requests.Timeout)
        return self._patience.call(lambda: self._once(body), passing, self.name)

    def _once(self, body: dict[str, Any]) -> list[float]:
        url = self._settings.base_url.rstrip("/") + "/embeddings"
        reply = requests.post(
            url, json=body, headers=self._headers, timeout=self._settings.timeout_s
        )
        if reply.status_code in {408, 409, 425, 429} or reply.status_code >= 500:
            raise _PassingError(reply.reason, response=reply)
        try:
            reply.raise_for_status()
            return [float(value) for value in reply.json()["data"][0]["embedding"]]
        except (requests.HTTPError, ValueError, LookupError, TypeError) as error:
            said = " ".join(reply.text.split())[:160]
            raise EmbeddingError(
                f"{url}: expected an embedding, found status {reply.status_code}: {said}"
            ) from error


class _PassingError(requests.HTTPError):
    """Worth another try."""


def unit_rows(rows: Vectors) -> Vectors:
    """Each row at length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
