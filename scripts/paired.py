"""Before and after on the same items: the change, its interval, and how surely it is not zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from contextrl.envs.types import Record

RESAMPLES = 10_000


class PairedChange(Record):
    """Means over items of each item's mean over its samples. Intervals are 95%."""

    items: int
    samples_before: int
    samples_after: int
    before: float
    before_interval: tuple[float, float]
    after: float
    after_interval: tuple[float, float]
    change: float
    change_interval: tuple[float, float]
    """Bootstrap over items, the same items before and after."""
    p_value: float
    """Two-sided sign-flip permutation test over items that the change is zero."""
    by_item: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Each item's mean before and after."""


def paired_change(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], *, seed: int = 0
) -> PairedChange:
    """Compare items present on both sides; the others have nothing to be paired with.

    Raises `ValueError` if there are none.
    """
    items = sorted(key for key in before if before[key] and after.get(key))
    if not items:
        raise ValueError("expected items measured both before and after, found none")
    x = np.array([np.mean(before[item]) for item in items])
    y = np.array([np.mean(after[item]) for item in items])
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(items), size=(RESAMPLES, len(items)))
    signs = rng.choice([-1.0, 1.0], size=(RESAMPLES, len(items)))
    change = y - x
    flipped = np.abs((signs * change).mean(axis=1))
    return PairedChange(
        items=len(items),
        samples_before=sum(len(before[item]) for item in items),
        samples_after=sum(len(after[item]) for item in items),
        before=float(x.mean()),
        before_interval=_interval(x[rows].mean(axis=1)),
        after=float(y.mean()),
        after_interval=_interval(y[rows].mean(axis=1)),
        change=float(change.mean()),
        change_interval=_interval(change[rows].mean(axis=1)),
        p_value=float((1 + (flipped >= abs(change.mean()) - 1e-12).sum()) / (1 + RESAMPLES)),
        by_item={item: (float(x[i]), float(y[i])) for i, item in enumerate(items)},
    )


def _interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
