"""What was paid, by this run and by those before it, and when a run must stop paying."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.errors import JudgeError, SpentError
from contextrl.pairs.store import Spent, named

PAID = "paid.jsonl"


class Payment(Record):
    """One reply, whether or not it was of use."""

    key: str
    """Digest of what was asked."""
    model: str
    usd: float | None
    """None when nobody knows the model's price."""


class Ledger:
    """Shared by all threads of a run. Calls under way when the money ends are still paid."""

    def __init__(self, work: Path, most_usd: float | None = None) -> None:
        """`work` keeps every payment; `most_usd` is for this run alone."""
        self.most_usd = most_usd
        self.paid_usd = 0.0
        """By this run."""
        self._file = work / PAID
        self._by_key: defaultdict[str, float] = defaultdict(float)
        self._unpriced: list[str] = []
        self._torn = False
        self._priced_before = self._read()
        self._unpriced_before = len(self._unpriced)
        self._lock = threading.Lock()

    def check(self) -> None:
        """Before a call.

        Raises:
            SpentError: nothing is left.
            JudgeError: there is a budget, and a reply came whose price nobody knows.
        """
        with self._lock:
            if self.most_usd is None:
                return
            if len(self._unpriced) > self._unpriced_before:
                raise no_price(self._unpriced[-1])
            if self.paid_usd >= self.most_usd:
                raise SpentError(f"the budget of ${self.most_usd:.2f} is spent")

    def add(self, payment: Payment) -> None:
        """After a call."""
        with self._lock:
            self.paid_usd += payment.usd or 0.0
            self._count(payment)
            with named(self._file):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write("\n" * self._torn + payment.model_dump_json() + "\n")
                self._torn = False

    def spent(self) -> Spent:
        with self._lock:
            return Spent(
                last_run_usd=self.paid_usd,
                all_runs_usd=self._priced_before + self.paid_usd,
                unpriced_calls=len(self._unpriced),
            )

    def cost_of(self, keys: Iterable[str]) -> float:
        """By all runs."""
        with self._lock:
            return sum(self._by_key.get(key, 0.0) for key in keys)

    def _read(self) -> float:
        if not self._file.exists():
            return 0.0
        total = 0.0
        with named(self._file):
            body = self._file.read_bytes()
        self._torn = bool(body) and not body.endswith(b"\n")
        for line in body.splitlines():
            try:
                payment = Payment.model_validate_json(line)
            except ValidationError:
                continue  # cut short when its run was killed
            self._count(payment)
            total += payment.usd or 0.0
        return total

    def _count(self, payment: Payment) -> None:
        self._by_key[payment.key] += payment.usd or 0.0
        if payment.usd is None:
            self._unpriced.append(payment.model)


def no_price(model: str) -> JudgeError:
    return JudgeError(
        f"{model}: expected a price, since there is a budget, found none; give its price or leave "
        "the budget out"
    )
