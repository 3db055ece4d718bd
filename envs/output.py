"""Output of unknown length, in memory of known size."""

from __future__ import annotations

from collections.abc import Callable


class HeadTail:
    """The first and the last bytes of a stream, in memory bounded by `limit`.

    `on_add` hears all of it as it comes.
    """

    def __init__(self, limit: int, on_add: Callable[[bytes], None] | None = None) -> None:
        self._on_add = on_add
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped = 0

    def add(self, content: bytes) -> None:
        if self._on_add is not None and content:
            self._on_add(content)
        room = self._half - len(self._head)
        if room > 0:
            self._head += content[:room]
            content = content[room:]
        if content:
            self._tail += content
            # Trimmed at twice the size, so that a long stream is copied once and not quadratically.
            if len(self._tail) > 2 * self._half:
                self._trim()

    def _trim(self) -> None:
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self.dropped += excess

    def text(self) -> str:
        self._trim()
        head = self._head.decode("utf-8", "replace")
        if not self.dropped:
            return (self._head + self._tail).decode("utf-8", "replace")
        tail = self._tail.decode("utf-8", "replace")
        return f"{head}\n[... {self.dropped} bytes cut ...]\n{tail}"


def overlap(text: bytes, marker: bytes) -> int:
    """How many of the last bytes of `text` may be the beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next(n for n in range(longest, -1, -1) if text.endswith(marker[:n]))
