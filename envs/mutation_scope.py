"""What runs of the tests say: which tests can be trusted, which try a function, which see a bug."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contextrl.envs.mutants import Function
from contextrl.envs.mutation_runner import Ended, SuiteReport
from contextrl.envs.types import Outcome

MAX_NEIGHBOURS = 4
MAX_FAIL_TO_PASS = 5
MAX_PASS_TO_PASS = 10

_SHELL_SAFE = re.compile(r"[\w./:\[\]-]+")


@dataclass(frozen=True, slots=True)
class Scope:
    """The test file that is nearest to one function, and its trusted tests, nearest first.

    One file, because grading runs whole files.
    """

    file: str
    covering: tuple[str, ...]
    """Tests that enter the function when they run."""
    neighbours: tuple[str, ...]
    """Some of the tests that do not."""

    @property
    def tests(self) -> tuple[str, ...]:
        return self.covering + self.neighbours


@dataclass(frozen=True, slots=True)
class Baseline:
    """The intact tree under several runs of its whole suite."""

    trusted: tuple[str, ...]
    """Tests that passed every time."""
    distrusted: tuple[str, ...]
    """Tests that failed, were skipped or were missing at least once."""
    scopes: dict[str, Scope]
    """By function name, only of functions that a trusted test enters."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one run says of one mutant. `reason` is empty if it makes a task."""

    reason: str
    failing: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


def baseline(functions: Iterable[Function], reports: Sequence[SuiteReport]) -> Baseline:
    """Read from at least two runs of the intact suite, at least one of them traced."""
    seen = sorted({test for report in reports for test in report.outcomes})
    trusted = tuple(
        test
        for test in seen
        if _SHELL_SAFE.fullmatch(test)
        and all(report.outcome(test) is Outcome.PASSED for report in reports)
    )
    entered: dict[str, set[str]] = {test: set() for test in trusted}
    by_file: dict[str, list[Function]] = {}
    for function in functions:
        by_file.setdefault(function.file, []).append(function)
    for report in reports:
        for test in entered.keys() & report.touched.keys():
            for file, line in report.touched[test]:
                for function in by_file.get(file, ()):
                    if function.first_line <= line <= function.last_line:
                        entered[test].add(function.name)
    scopes = {}
    for function in functions:
        covering = [test for test in trusted if function.name in entered[test]]
        covering.sort(key=lambda test: _distance(function.name, test, len(entered[test])))
        if covering:
            scopes[function.name] = _scope(covering, trusted)
    return Baseline(trusted, tuple(sorted(set(seen) - set(trusted))), scopes)


def judge(report: SuiteReport, scope: Scope) -> Judgement:
    """Which tests of `scope` a mutant breaks and which it leaves, nearest first, capped."""
    # An endless loop that also grows meets one limit or the other, as the machine has it.
    out_of_memory = any(crash.startswith("MemoryError") for crash in report.crashes.values())
    if report.ended is not Ended.REPORTED or out_of_memory:
        return Judgement("resource-limit")
    broken = (Outcome.FAILED, Outcome.ERROR)
    failing = tuple(test for test in scope.tests if report.outcome(test) in broken)
    passing = tuple(test for test in scope.tests if report.outcome(test) is Outcome.PASSED)
    reason = ""
    if not failing:
        # A source that cannot even be imported leaves every test missing: nothing passes.
        reason = "survived" if passing else "no-pass-to-pass"
    elif not passing:
        reason = "no-pass-to-pass"
    return Judgement(reason, failing[:MAX_FAIL_TO_PASS], passing[:MAX_PASS_TO_PASS])


def _distance(function: str, test: str, functions_entered: int) -> tuple[bool, bool, int, str]:
    """Tests named after the function come first, then those that enter few functions."""
    name = test.split("::")[-1].split("[")[0]
    return name != f"test_{function}", function not in name, functions_entered, test


def _scope(covering: list[str], trusted: tuple[str, ...]) -> Scope:
    file = _file(covering[0])
    here = [test for test in trusted if _file(test) == file]
    return Scope(
        file=file,
        covering=tuple(test for test in covering if _file(test) == file),
        neighbours=tuple(test for test in here if test not in covering)[:MAX_NEIGHBOURS],
    )


def _file(test: str) -> str:
    return test.partition("::")[0]
