"""vLLM's `/v1/embeddings` for images: one chat with one image a request.

The request is what vLLM documents for Qwen3-VL-Embedding: the instruction as the system's message,
the image as the user's, and an empty answer to be continued, at whose end the model is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import requests

from contextrl.pairs.embedders import (
    INSTRUCTION,
    MAX_PIXELS,
    Embedded,
    embedder_name,
    scaled_down,
    unit_rows,
)
from contextrl.pairs.endpoints import data_url
from contextrl.pairs.errors import EmbeddingError
from contextrl.pairs.images import png_file
from contextrl.pairs.patience import Patience

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_IN_A_ROW = 20
"""Images refused one after another, before it is the server that is wrong and not the images."""
_PASSING = frozenset({408, 409, 425, 429})
_REFUSING = frozenset({400, 413, 422})
"""Said of one request: too long, too large, or an image that the server does not open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    model: str
    base_url: str
    """Ends in `/v1`."""
    api_key: str | None = None
    instruction: str = INSTRUCTION
    max_pixels: int = MAX_PIXELS
    timeout_s: float = 120.0
    tries: int = 5
    first_pause_s: float = 1.0
    concurrency: int = 8


class ServerEmbedder:
    """Remembers how many images in a row were refused, whatever the batches."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises `EmbeddingError` for an address that is none."""
        address = urlsplit(settings.base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise EmbeddingError(
                f"expected a base URL such as http://localhost:8000/v1, found {settings.base_url}"
            )
        self.name = embedder_name(
            settings.model, "on a server", settings.instruction, settings.max_pixels
        )
        self._settings = settings
        self._url = settings.base_url.rstrip("/") + "/embeddings"
        self._patience = Patience(settings.tries, settings.first_pause_s)
        self._headers = {"Authorization": f"Bearer {settings.api_key or 'none'}"}
        self._in_a_row = 0

    def embed(self, images: Sequence[Image]) -> Embedded:
        """Raises `EmbeddingError`; `EndpointBusyError` when another try may help."""
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            replies = list(pool.map(self._patiently, images))
        refused = {at: reply for at, reply in enumerate(replies) if isinstance(reply, str)}
        rows = [reply for reply in replies if not isinstance(reply, str)]
        if len({len(row) for row in rows}) > 1:
            raise EmbeddingError(
                f"{self.name}: expected vectors of one length, found others; does the server serve "
                "one embedding model?"
            )
        for reply in replies:
            self._in_a_row = self._in_a_row + 1 if isinstance(reply, str) else 0
            if self._in_a_row >= MOST_IN_A_ROW:
                raise EmbeddingError(
                    f"{self._url}: expected embeddings, found {MOST_IN_A_ROW} images refused in a "
                    f"row, the last with: {reply}"
                )
        vectors = np.zeros((len(images), len(rows[0]) if rows else 0), np.float32)
        if rows:
            kept = [at for at in range(len(images)) if at not in refused]
            vectors[kept] = unit_rows(np.asarray(rows, np.float32))
        return Embedded(vectors, refused)

    def _patiently(self, image: Image) -> list[float] | str:
        """The vector, or why this image has none."""
        url = data_url(png_file(scaled_down(image, self._settings.max_pixels)))
        body = {
            "model": self._settings.model,
            "encoding_format": "float",
            "messages": _messages(self._settings.instruction, url),
            "continue_final_message": True,
            "add_special_tokens": True,
        }
        passing = (
            _PassingError,
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        )
        try:
            return self._patience.call(lambda: self._once(body), passing, self.name)
        except requests.RequestException as error:
            said = " ".join(str(error).split())[:160]
            raise EmbeddingError(f"{self._url}: expected a reply, found {said}") from error

    def _once(self, body: dict[str, Any]) -> list[float] | str:
        reply = requests.post(
            self._url, json=body, headers=self._headers, timeout=self._settings.timeout_s
        )
        status = reply.status_code
        if status in _PASSING or status >= 500:
            raise _PassingError(reply.reason, response=reply)
        if status in _REFUSING:
            return f"expected the server to embed the image, found status {status}: {_said(reply)}"
        try:
            reply.raise_for_status()
            row = [float(value) for value in reply.json()["data"][0]["embedding"]]
        except (requests.HTTPError, ValueError, LookupError, TypeError) as error:
            raise EmbeddingError(
                f"{self._url}: expected an embedding, found status {status}: {_said(reply)}"
            ) from error
        if not row or not np.isfinite(row).all():
            return "expected a vector of finite numbers from the server, found none"
        return row


class _PassingError(requests.HTTPError):
    """Worth another try."""


def _said(reply: requests.Response) -> str:
    return " ".join(reply.content[:640].decode("utf-8", "replace").split())[:160]


def _messages(instruction: str, url: str) -> list[dict[str, Any]]:
    system = {"role": "system", "content": [{"type": "text", "text": instruction}]}
    return [
        *([system] if instruction else []),
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]},
        {"role": "assistant", "content": [{"type": "text", "text": ""}]},
    ]
