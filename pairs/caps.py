"""A seeded choice of candidates in which no repository, file, function, run or bug dominates."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

Function = tuple[str, str, str, str]
"""Repository, base commit, file, qualified name."""


class Side(Protocol):
    """What a cap asks of a run."""

    @property
    def trajectory_id(self) -> str: ...

    @property
    def task_id(self) -> str: ...


SideT = TypeVar("SideT", bound=Side)


@dataclass(frozen=True, slots=True)
class Candidate(Generic[SideT]):
    """An ordered pair of runs: `positive` is the one whose patch is asked about."""

    positive: SideT
    negative: SideT
    function: Function


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """No function, file, repository, run or couple of bugs may dominate the set."""

    per_function: int = 64
    per_file: int = 512
    per_repository: int | None = None
    per_trajectory: int = 8
    """On either side of a pair."""
    per_bug_couple: int = 2
    """Pairs with the same (positive task, negative task)."""
    limit: int | None = None
    """Pairs in all."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"caps.{name} must be positive, got {value}")

    def loosened(self, factor: int) -> Caps:
        """For drawing candidates of which some will be rejected."""
        names = [name for name in self.__slots__ if getattr(self, name) is not None]
        return replace(self, **{name: factor * getattr(self, name) for name in names})


def within(
    caps: Caps,
    candidates: Iterable[Candidate[SideT]],
    seed: int,
    *,
    key: Callable[[Candidate[SideT]], str],
) -> list[Candidate[SideT]]:
    """Goes round the functions and takes both orders of a couple together.

    With both orders in the set each context is right as often as wrong, so nothing that depends
    on one context alone (its length, its outcome) predicts the label. `key` orders a couple's two.
    """
    couples: defaultdict[tuple[Function, str], list[Candidate[SideT]]] = defaultdict(list)
    for candidate in sorted(candidates, key=key):
        couples[candidate.function, _couple_digest(candidate, seed)].append(candidate)
    turn: Counter[Function] = Counter()
    ranked = []
    for (function, digest), group in sorted(couples.items(), key=lambda item: item[0][1]):
        ranked.append((turn[function], digest, group))
        turn[function] += 1
    used: Counter[Hashable] = Counter()
    chosen: list[Candidate[SideT]] = []
    for _, _, group in sorted(ranked, key=lambda item: item[:2]):
        for candidate in group:
            limits = _limits(candidate, caps)
            if all(used[each] < most for each, most in limits.items()):
                used.update(limits.keys())
                chosen.append(candidate)
    return chosen


def _limits(candidate: Candidate[SideT], caps: Caps) -> dict[Hashable, int]:
    positive, negative = candidate.positive, candidate.negative
    limits: dict[Hashable, int] = {
        ("function", candidate.function): caps.per_function,
        ("file", candidate.function[:3]): caps.per_file,
        ("trajectory", positive.trajectory_id): caps.per_trajectory,
        ("trajectory", negative.trajectory_id): caps.per_trajectory,
        ("bugs", positive.task_id, negative.task_id): caps.per_bug_couple,
    }
    if caps.per_repository is not None:
        limits["repository", candidate.function[0]] = caps.per_repository
    if caps.limit is not None:
        limits["all"] = caps.limit
    return limits


def _couple_digest(candidate: Candidate[SideT], seed: int) -> str:
    first, second = sorted(run.trajectory_id for run in (candidate.positive, candidate.negative))
    return hashlib.sha256(f"{seed}\0{first}\0{second}".encode()).hexdigest()
