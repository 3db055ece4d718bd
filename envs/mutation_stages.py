"""The filters between all edits of a package and the bugs that its tests see, each one counted."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from contextrl.envs.errors import MutationError
from contextrl.envs.mutants import Function, Mutant, propose, spread
from contextrl.envs.mutation_runner import (
    DriverJob,
    Ended,
    StartDriver,
    SuiteReport,
    SuiteRun,
    run_suites,
)
from contextrl.envs.mutation_scope import Baseline, Scope, baseline, judge
from contextrl.envs.package_specs import PackageSpec
from contextrl.envs.task_splits import StageCount
from contextrl.envs.types import Outcome

logger = logging.getLogger(__name__)

WORKDIR = "/testbed"
FIRST_HASH_SEED, SECOND_HASH_SEED = 1, 2
WALL_PER_CPU_S = 8
"""A run may wait this many times its CPU limit, for its turn on a busy machine."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, the runs that are done and the runs in all."""


@dataclass(frozen=True, slots=True)
class Bug:
    """A mutant, the tests that see it and what the nearest of them says."""

    mutant: Mutant
    failing: tuple[str, ...]
    passing: tuple[str, ...]
    crash: str

    @property
    def tests(self) -> tuple[str, ...]:
        return self.failing + self.passing


@dataclass(slots=True, kw_only=True)
class Workbench:
    """The package in its image, and the count of every filter so far."""

    start_driver: StartDriver
    spec: PackageSpec
    image: str
    sources: Mapping[str, str]
    """Prepared text by file."""
    workers: int
    progress: Progress
    stages: list[StageCount] = field(default_factory=list)

    def count(self, stage: str, kept: int, dropped: Mapping[str, int]) -> None:
        why = {reason: number for reason, number in sorted(dropped.items()) if number}
        seen = kept + sum(why.values())
        self.stages.append(StageCount(stage=stage, seen=seen, kept=kept, dropped=why))
        logger.info("%s: kept %d/%d %s", stage, kept, seen, why or "")

    def run(
        self, stage: str, runs: Iterable[SuiteRun], *, hash_seed: int = FIRST_HASH_SEED
    ) -> dict[str, SuiteReport]:
        wanted = tuple(runs)
        done = 0

        def report_progress(_: SuiteReport) -> None:
            nonlocal done
            done += 1
            self.progress(stage, done, len(wanted))

        job = DriverJob(
            tree=WORKDIR,
            tests=self.spec.tests,
            sources=self.spec.sources,
            runs=wanted,
            workers=self.workers,
            cpu_s=self.spec.mutant_cpu_s,
            wall_s=float(self.spec.mutant_cpu_s * WALL_PER_CPU_S),
        )
        started = time.monotonic()
        reports = run_suites(
            self.start_driver, self.image, job, hash_seed=hash_seed, on_report=report_progress
        )
        logger.info("%s: %d runs in %.1f s", stage, done, time.monotonic() - started)
        return reports


def measure_baseline(bench: Workbench, functions: Sequence[Function]) -> Baseline:
    """The whole suite twice under each of two hash seeds, once traced.

    Raises `MutationError` if it does not end by itself or has no test that can be trusted.
    """
    suite = (bench.spec.tests,)
    reports: list[SuiteReport] = []
    for hash_seed in (FIRST_HASH_SEED, SECOND_HASH_SEED):
        runs = [SuiteRun(run_id="plain", tests=suite), SuiteRun(run_id="again", tests=suite)]
        runs[1] = runs[1].model_copy(update={"trace": hash_seed == FIRST_HASH_SEED})
        reports += bench.run(f"baseline-{hash_seed}", runs, hash_seed=hash_seed).values()
    for report in reports:
        if report.ended is not Ended.REPORTED:
            raise MutationError(
                f"{bench.spec.name}: expected its tests to end by themselves, found {report.ended}"
            )
    base = baseline(functions, reports)
    bench.count("tests", len(base.trusted), {"failed-or-flaky": len(base.distrusted)})
    if not base.scopes:
        raise MutationError(
            f"{bench.spec.name}: expected tests that pass and enter its functions, found none in "
            f"{bench.spec.tests}; does the package pass them in image {bench.image}?"
        )
    return base


def propose_mutants(
    bench: Workbench, functions: Sequence[Function], base: Baseline, *, seed: int
) -> dict[str, list[Mutant]]:
    """Every mutant of every function that a trusted test enters, each list well mixed."""
    by_function: dict[str, list[Mutant]] = {function.name: [] for function in functions}
    dropped = Counter[str]()
    for file, text in bench.sources.items():
        proposals = propose(file, text, functions)
        dropped += proposals.dropped
        for mutant in proposals.mutants:
            by_function[mutant.function].append(mutant)
    every = sum(map(len, by_function.values()))
    bench.count("edits", every, dropped)
    covered = {name: spread(by_function[name], seed=seed) for name in base.scopes}
    kept = sum(map(len, covered.values()))
    bench.count("covered", kept, {"no-test-enters": every - kept})
    return covered


def find_bugs(bench: Workbench, stage: str, mutants: Iterable[Mutant], base: Baseline) -> list[Bug]:
    """Run each mutant once; keep those that some test sees and another does not."""
    waiting = list(mutants)
    reports = bench.run(stage, (_run(mutant, base.scopes) for mutant in waiting))
    bugs, dropped = [], Counter[str]()
    for mutant in waiting:
        report = reports[mutant.key]
        verdict = judge(report, base.scopes[mutant.function])
        if verdict.reason:
            dropped[verdict.reason] += 1
        else:
            crash = report.crashes.get(verdict.failing[0], "")
            bugs.append(Bug(mutant, verdict.failing, verdict.passing, crash))
    bench.count(stage, len(bugs), dropped)
    return bugs


def confirm(bench: Workbench, bugs: Sequence[Bug], base: Baseline) -> frozenset[str]:
    """Keys of the bugs whose chosen tests say the same again under another hash seed.

    The same files also run on the intact tree, where every chosen test must pass.
    """
    runs = [_run(bug.mutant, base.scopes) for bug in bugs]
    files = dict.fromkeys(base.scopes[bug.mutant.function].file for bug in bugs)
    runs += [SuiteRun(run_id=file, tests=(file,)) for file in files]
    reports = bench.run("confirm", runs, hash_seed=SECOND_HASH_SEED)
    kept, dropped = set(), Counter[str]()
    for bug in bugs:
        again = reports[bug.mutant.key]
        intact = reports[base.scopes[bug.mutant.function].file]
        if any(intact.outcome(test) is not Outcome.PASSED for test in bug.tests):
            dropped["intact-fails"] += 1
        elif not _same(again, bug):
            dropped["flaky"] += 1
        else:
            kept.add(bug.mutant.key)
    bench.count("confirm", len(kept), dropped)
    return frozenset(kept)


def _same(report: SuiteReport, bug: Bug) -> bool:
    broken = (Outcome.FAILED, Outcome.ERROR)
    return all(report.outcome(test) in broken for test in bug.failing) and all(
        report.outcome(test) is Outcome.PASSED for test in bug.passing
    )


def _run(mutant: Mutant, scopes: Mapping[str, Scope]) -> SuiteRun:
    """The whole nearest test file, as grading runs it."""
    return SuiteRun(
        run_id=mutant.key,
        tests=(scopes[mutant.function].file,),
        file=mutant.file,
        line=mutant.line,
        text=mutant.after,
    )
