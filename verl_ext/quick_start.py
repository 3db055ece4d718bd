"""What a process of veRL need not import.

A training starts six or seven processes, and each imports half of the environment: on a small
machine that is most of what a short training waits for.
"""

from __future__ import annotations

import importlib
import sys

ASSISTED_GENERATION = "transformers.generation.candidate_generator"


def without_scikit_learn() -> None:
    """transformers imports it, and with it SciPy and pandas, for the tuning of assisted generation,
    which a training never does. It is still there for whoever imports it by name."""
    if ASSISTED_GENERATION in sys.modules or "sklearn" in sys.modules:
        return
    utils = importlib.import_module("transformers.utils")
    found = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        importlib.import_module(ASSISTED_GENERATION)
    finally:
        utils.is_sklearn_available = found
