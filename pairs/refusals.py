"""Whether an endpoint refuses single questions, which is normal, or all of them, which is not."""

from __future__ import annotations

import threading

from contextrl.pairs.errors import JudgeError, RefusedError

MOST_REFUSALS = 10


class Refusals:
    """Of one endpoint in one run. Any number of threads may tell."""

    def __init__(self, most: int = MOST_REFUSALS, *, advice: str = "raise --most-refusals") -> None:
        self._most = most
        self._advice = advice
        self._refused = 0
        self._has_worked = False
        self._lock = threading.Lock()

    def worked(self) -> None:
        """A whole answer came, now or in an earlier run."""
        self._has_worked = True

    def add(self, error: RefusedError) -> None:
        """Raises `JudgeError` once nothing but refusals came, `most` of them."""
        with self._lock:
            self._refused += 1
            if not self._has_worked and self._refused >= self._most:
                raise JudgeError(
                    f"the first {self._refused} questions got no answer, the last with: {error}; "
                    f"if that is the questions' fault, {self._advice}"
                ) from error
