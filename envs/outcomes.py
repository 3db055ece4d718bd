"""What pytest reported -> the outcome of each test that a task lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from contextrl.envs.types import Outcome

_SEVERITY = (Outcome.PASSED, Outcome.SKIPPED, Outcome.FAILED, Outcome.ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test as pytest names it: `file::Class::name[params]`."""

    node_id: str
    outcome: Outcome


def outcomes(cases: Iterable[Case], wanted: Iterable[str]) -> dict[str, Outcome]:
    """The outcome of every wanted test id; of a test reported twice, the worse one.

    Two kinds of ids are not pytest's own. Some datasets cut parametrised ids at their first blank:
    an id with an open bracket stands for all that continue it. Some list bare function names.
    """
    by_id: dict[str, Outcome] = {}
    by_name: dict[str, Outcome] = {}
    for case in cases:
        name = case.node_id.rsplit("::", 1)[-1] if "[" not in case.node_id else ""
        for table, key in ((by_id, case.node_id), (by_name, name)):
            table[key] = _worse(table.get(key, Outcome.PASSED), case.outcome)
    found = {}
    for test in wanted:
        outcome = by_id.get(test)
        if outcome is None and "[" in test and not test.endswith("]"):
            for node_id, other in by_id.items():
                if node_id.startswith(test):
                    outcome = _worse(outcome or Outcome.PASSED, other)
        if outcome is None and "::" not in test:
            outcome = by_name.get(test)
        found[test] = outcome or Outcome.MISSING
    return found


def _worse(one: Outcome, other: Outcome) -> Outcome:
    return max(one, other, key=_SEVERITY.index)
