"""Could a classifier that never reads pick the supporting context? And for which pairs?

One logistic regression and one small forest on the surface features of audit.py, as differences
between the two contexts, so that neither can use which side is which. Cross-validation never has a
group (a repository; a file or function when there are too few) on both sides. Every pair is judged
by models that did not see its group; "solved with confidence" means the right context at
`CONFIDENT` probability or more under the better of the two.

With both orders of a couple in the set no feature of one context alone can score: what remains are
features of (patch, context), such as identifier overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from contextrl.envs.types import Record
from contextrl.pairs.audit import FEATURES
from contextrl.pairs.errors import PairsError
from contextrl.pairs.intervals import Share, wilson
from contextrl.pairs.probe import ProbeReport, accuracy_by_pair
from contextrl.pairs.render import orders
from contextrl.pairs.types import Order, TrajectoryPair

CONFIDENT = 0.9
MAX_FOLDS = 5
MIN_PAIRS = 8


class GroupBy(StrEnum):
    REPOSITORY = "repository"
    FILE = "file"
    FUNCTION = "function"


class ClassifierResult(Record):
    name: str
    accuracy: Share
    """Out of fold; one trial per pair."""

    @property
    def beats_chance(self) -> bool:
        return self.accuracy.low > 0.5


class ShortcutReport(Record):
    pair_ids: tuple[str, ...]
    grouped_by: GroupBy
    groups: int
    folds: int
    classifiers: tuple[ClassifierResult, ...]
    """The better one first."""
    solved: tuple[str, ...]
    """Ids of pairs that surface features solve with confidence, sorted."""
    won: tuple[str, ...]
    """Ids of all pairs that they get right, the surest first."""
    share_a: Share
    """Pairs whose supporting context is shown as A under the seed: 0.5 when balanced."""


def shortcut_audit(pairs: Sequence[TrajectoryPair], *, seed: int = 0) -> ShortcutReport:
    """Raises `PairsError`: too few pairs or groups, or scikit-learn is not installed."""
    if len(pairs) < MIN_PAIRS:
        raise PairsError(f"expected at least {MIN_PAIRS} pairs to audit, found {len(pairs)}")
    by, groups = _groups(pairs)
    folds = min(MAX_FOLDS, len(set(groups)))
    if folds < 2:
        raise PairsError("expected pairs of at least two functions to audit, found one")
    probabilities = {
        name: _out_of_fold(make, pairs, groups, folds) for name, make in _classifiers(seed).items()
    }
    results = [
        ClassifierResult(name=name, accuracy=wilson([_credit(each) for each in values]))
        for name, values in probabilities.items()
    ]
    results.sort(key=lambda result: -result.accuracy.mean)
    best = probabilities[results[0].name]
    shown = orders((pair.pair_id for pair in pairs), seed)
    return ShortcutReport(
        pair_ids=tuple(pair.pair_id for pair in pairs),
        grouped_by=by,
        groups=len(set(groups)),
        folds=folds,
        classifiers=tuple(results),
        solved=tuple(
            sorted(p.pair_id for p, sure in zip(pairs, best, strict=True) if sure >= CONFIDENT)
        ),
        won=tuple(
            pair.pair_id
            for sure, pair in sorted(
                zip(best, pairs, strict=True), key=lambda each: (-each[0], each[1].pair_id)
            )
            if sure > 0.5
        ),
        share_a=wilson([float(each is Order.POSITIVE_FIRST) for each in shown.values()]),
    )


class ProbeBySurface(Record):
    """A model that reads is as good on the pairs that surface features lose."""

    won: Share
    """Accuracy of the probe on the pairs that the better classifier gets right."""
    lost: Share


def probe_by_surface(report: ShortcutReport, probe: ProbeReport) -> ProbeBySurface:
    """Raises `PairsError` if the probe asked about none of the audited pairs."""
    accuracy, won = accuracy_by_pair(probe), set(report.won)
    asked = [pair_id for pair_id in report.pair_ids if pair_id in accuracy]
    if not asked:
        raise PairsError("expected a probe of the audited pairs, found none of their ids in it")
    return ProbeBySurface(
        won=wilson([accuracy[pair_id] for pair_id in asked if pair_id in won]),
        lost=wilson([accuracy[pair_id] for pair_id in asked if pair_id not in won]),
    )


def without_shortcuts(
    pairs: Sequence[TrajectoryPair], report: ShortcutReport
) -> tuple[TrajectoryPair, ...]:
    """The pairs that surface features do not solve with confidence."""
    solved = set(report.solved)
    return tuple(pair for pair in pairs if pair.pair_id not in solved)


def rebalanced(
    pairs: Sequence[TrajectoryPair], report: ShortcutReport
) -> tuple[TrajectoryPair, ...]:
    """Pairs of which surface features get at most half right: of the others the surest are gone."""
    lost = len(pairs) - len(report.won)
    too_sure = set(report.won[: max(len(report.won) - lost, 0)])
    return tuple(pair for pair in pairs if pair.pair_id not in too_sure)


def _groups(pairs: Sequence[TrajectoryPair]) -> tuple[GroupBy, list[str]]:
    """The coarsest grouping that still has three groups; functions when none has."""
    names: list[str] = []
    for by in GroupBy:
        names = [_group(pair, by) for pair in pairs]
        if len(set(names)) >= 3:
            return by, names
    return GroupBy.FUNCTION, names


def _group(pair: TrajectoryPair, by: GroupBy) -> str:
    where = pair.provenance
    parts = [where.repo]
    if by is not GroupBy.REPOSITORY:
        parts.append(where.file)
    if by is GroupBy.FUNCTION:
        parts.append(where.function)
    return "\0".join(parts)


def _classifiers(seed: int) -> dict[str, Callable[[], Any]]:
    _, sklearn = _libraries()
    return {
        # Without an intercept it is blind to which context is called the first.
        "logistic regression": lambda: sklearn.pipeline.make_pipeline(
            sklearn.preprocessing.StandardScaler(with_mean=False),
            sklearn.linear_model.LogisticRegression(fit_intercept=False, max_iter=1000),
        ),
        "random forest": lambda: sklearn.ensemble.RandomForestClassifier(
            n_estimators=100, min_samples_leaf=3, random_state=seed, n_jobs=1
        ),
    }


def _out_of_fold(
    make: Callable[[], Any], pairs: Sequence[TrajectoryPair], groups: Sequence[str], folds: int
) -> list[float]:
    """Probability of the supporting context for each pair, by a model without its group."""
    numpy, sklearn = _libraries()
    rows = [
        [feature(p, p.positive) - feature(p, p.negative) for feature in FEATURES.values()]
        for p in pairs
    ]
    x = numpy.asarray(rows, dtype=float)
    found = numpy.full(len(pairs), 0.5)
    splitter = sklearn.model_selection.GroupKFold(n_splits=folds)
    for train, test in splitter.split(x, groups=groups):
        # Each pair both ways round, so that the classes are balanced and symmetric.
        both = numpy.concatenate([x[train], -x[train]])
        label = numpy.concatenate([numpy.ones(len(train)), numpy.zeros(len(train))])
        model = make().fit(both, label)
        forward = model.predict_proba(x[test])[:, 1]
        backward = model.predict_proba(-x[test])[:, 1]
        found[test] = (forward + 1 - backward) / 2
    return [float(each) for each in found]


def _credit(probability: float) -> float:
    return 0.5 if probability == 0.5 else float(probability > 0.5)


def _libraries() -> tuple[Any, Any]:
    try:
        import numpy
        import sklearn
        import sklearn.ensemble
        import sklearn.linear_model
        import sklearn.model_selection
        import sklearn.pipeline
        import sklearn.preprocessing
    except ImportError as error:
        raise PairsError(
            "expected the package `scikit-learn` for the shortcut audit, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    return numpy, sklearn
