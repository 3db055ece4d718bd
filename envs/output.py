"""Output of unknown length, in memory of known size."""

from __future__ import annotations


class HeadTail:
    """The first and the last bytes of a stream, in memory bounded by `limit`."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self.dropped = 0

    def add(self, content: bytes) -> None:
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
