"""What a run has paid, and when it must stop paying."""

from __future__ import annotations

import threading

from contextrl.pairs.errors import JudgeError, SpentError


class Ledger:
    """Shared by all threads of a run. Calls under way when the money ends are still paid."""

    def __init__(self, most_usd: float | None = None) -> None:
        self.paid_usd = 0.0
        self._most_usd = most_usd
        self._lock = threading.Lock()

    def check(self) -> None:
        """Before a call. Raises `SpentError` when nothing is left."""
        with self._lock:
            if self._most_usd is not None and self.paid_usd >= self._most_usd:
                raise SpentError(f"the budget of ${self._most_usd:.2f} is spent")

    def add(self, cost_usd: float, model: str) -> None:
        """After a call. Raises `JudgeError` for one without a price under a budget."""
        with self._lock:
            self.paid_usd += cost_usd
        if self._most_usd is not None and cost_usd <= 0:
            raise JudgeError(
                f"{model}: expected a price, since there is a budget, found none; give its price "
                "or leave the budget out"
            )
