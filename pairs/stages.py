"""Counts: how many came to a stage of a filter and how many went on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import permutations

from contextrl.envs.types import Record


class StageCount(Record):
    """How many came to a stage and how many went on."""

    name: str
    unit: str
    """`runs`, `pairs` or `rows`; pairs are ordered."""
    seen: int
    kept: int


def sharing(keys: Sequence[frozenset[Hashable]]) -> int:
    """Ordered pairs of runs that have a key in common, without going through the pairs."""
    classes = Counter(keys)
    by_key: defaultdict[Hashable, list[frozenset[Hashable]]] = defaultdict(list)
    for each in classes:
        for key in each:
            by_key[key].append(each)
    linked = {couple for group in by_key.values() for couple in permutations(group, 2)}
    return sum(n * (n - 1) for each, n in classes.items() if each) + sum(
        classes[first] * classes[second] for first, second in linked
    )
