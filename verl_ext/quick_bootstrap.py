"""veRL's bootstrap of best-of-n and worst-of-n at a validation, without a Python call per draw.

veRL 0.9.1 reduces each of 1,000 draws of each question by itself: for 360 questions, four
answers each, that took 42 seconds, more than answering them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from verl.trainer.ppo import metric_utils

_usual: Callable[..., list[tuple[float, float]]] = metric_utils.bootstrap_metric


def bootstrap_metric(
    data: Sequence[Any],
    subset_size: int,
    reduce_fns: Sequence[Callable[..., Any]],
    n_bootstrap: int = 1000,
    seed: int = 42,
) -> list[tuple[float, float]]:
    """(mean, standard deviation) over the draws, of each function; for finite values veRL's own."""
    if any(function not in (np.max, np.min) for function in reduce_fns):
        return _usual(data, subset_size, reduce_fns, n_bootstrap=n_bootstrap, seed=seed)
    drawn = np.random.RandomState(seed).choice(len(data), size=(n_bootstrap, subset_size))
    values = np.asarray(data, dtype=np.float64)[drawn]
    reduced = [function(values, axis=1) for function in reduce_fns]
    return [(float(one.mean()), float(one.std())) for one in reduced]


def install() -> None:
    """`process_validation_metrics` finds it under veRL's own name."""
    metric_utils.bootstrap_metric = bootstrap_metric
