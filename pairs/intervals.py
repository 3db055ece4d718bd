"""95% intervals for shares of pairs. Pure functions, no dependency."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from contextrl.envs.types import Record

_Z = 1.959964
_RESAMPLES = 2000


class Share(Record):
    """A mean of values in [0, 1] over `n` independent items, with its 95% interval."""

    mean: float
    low: float
    high: float
    n: int


class Change(Record):
    """A mean difference over `n` items that were measured twice, with its 95% interval."""

    mean: float
    low: float
    high: float
    n: int


def wilson(values: Sequence[float]) -> Share:
    """Wilson's interval with one trial per item.

    Items between 0 and 1 (a pair right in one of its two orders counts 0.5) vary less than coin
    tosses of the same mean, so the interval is never too narrow for them. No items: [0, 1].
    """
    n = len(values)
    if n == 0:
        return Share(mean=0.0, low=0.0, high=1.0, n=0)
    p = sum(values) / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    # Rounding must not put the mean itself outside: at 1.0 the upper end is 1.0.
    low, high = min(max(0.0, centre - half), p), max(min(1.0, centre + half), p)
    return Share(mean=p, low=low, high=high, n=n)


def paired_bootstrap(differences: Sequence[float], *, seed: int = 0) -> Change:
    """Percentile bootstrap of the mean over items. No items: a change of 0 in [-1, 1]."""
    n = len(differences)
    if n == 0:
        return Change(mean=0.0, low=-1.0, high=1.0, n=0)
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(differences, k=n)) / n for _ in range(_RESAMPLES))
    tail = int(_RESAMPLES * 0.025)
    return Change(mean=sum(differences) / n, low=means[tail], high=means[-tail - 1], n=n)
