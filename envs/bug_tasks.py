"""Bugs of real repositories -> validated tasks: the tests say which of them each bug breaks.

For each repository and commit the whole suite runs twice on the intact tree, with two hash seeds;
a test counts if it passed both times. Each bug is then injected in a sandbox of its own and the
suite runs again. A bug becomes a task only if it breaks a test and leaves another one passing, and
if a real grading of the reference fix and of an empty diff says the same once more.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from unidiff.errors import UnidiffParseError

from contextrl.envs.bug_issue import ReadSource, bug_issue
from contextrl.envs.bug_rows import BugRow
from contextrl.envs.errors import ImageError, TaskRowError, TaskSetupError
from contextrl.envs.recipe import export_commit, find_recipe, find_repository
from contextrl.envs.suite import SuiteRun, run_suite
from contextrl.envs.task_splits import StageCount
from contextrl.envs.tasks import task_from_row
from contextrl.envs.tree_reader import reader_below
from contextrl.envs.types import Grader, Outcome, Record, Reward, SandboxProvider, Task, TaskSource
from contextrl.envs.validate import find_problem

logger = logging.getLogger(__name__)

WORKDIR = "/testbed"
HASH_SEEDS = (1, 2)
BASELINE_TIMEOUT_S = 900.0
SLOWER = 10.0
"""A bug's suite may take this many times as long as the intact one, and at least `MIN_LIMIT_S`."""
MIN_LIMIT_S = 60.0
BROKEN = frozenset({Outcome.FAILED, Outcome.ERROR, Outcome.MISSING})


class BugStage(StrEnum):
    """What a row must be, in the order it is asked."""

    READ = "its row can be read"
    BASELINE = "its repository's own tests pass"
    APPLIES = "its patch applies"
    ENDS = "its tests end"
    SEEN = "a test sees it"
    SPARES = "another test of the same file passes"
    GOLD = "graded, the fix resolves it"
    SAME = "graded, an empty diff fails the same tests"


class BugOutcome(Record):
    """Of one row: a task, or the stage at which it was lost and why."""

    instance_id: str
    task: Task | None = None
    lost: BugStage | None = None
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """A repository at a commit: its image, the tests that can be trusted, and its sources."""

    image: str
    tests: tuple[str, ...]
    trusted: tuple[str, ...]
    seconds: float
    read_source: ReadSource


@dataclass(frozen=True, slots=True, kw_only=True)
class BugBench:
    """Where bugs are tried out."""

    ensure_image: Callable[[Task], str]
    """Makes a task's image known to `provider` and gives its name; raises `ImageError`."""
    provider: SandboxProvider
    grader: Grader
    repos: Path
    scratch: Path
    """Gets one exported tree for each repository and commit."""


def build_bug_tasks(
    bench: BugBench,
    bugs: Sequence[BugRow],
    *,
    workers: int,
    on_outcome: Callable[[BugOutcome], None],
) -> None:
    """`on_outcome` gets one outcome for each bug, in no order, from one thread at a time.

    Raises:
        SandboxError: the engine itself failed; outcomes up to then are known.
    """
    bases: dict[tuple[str, str], Baseline | str] = {}
    for bug in bugs:
        if bug.place not in bases:
            try:
                bases[bug.place] = measure_baseline(bench, bug)
            except (ImageError, TaskSetupError) as error:
                bases[bug.place] = str(error)

    def outcome_of(bug: BugRow) -> BugOutcome:
        base = bases[bug.place]
        if isinstance(base, str):
            return _lost(bug, BugStage.BASELINE, base)
        return try_bug(bench, bug, base)

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(outcome_of, bug) for bug in bugs]
        try:
            for done in as_completed(waiting):
                on_outcome(done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def measure_baseline(bench: BugBench, bug: BugRow) -> Baseline:
    """Of the bug's repository at its commit, without the bug.

    Raises:
        ImageError: no recipe, no mirror, or the image cannot be built.
        TaskSetupError: its suite does not end, or no test passes twice.
    """
    intact = _pseudo_task(bug)
    image = bench.ensure_image(intact)
    recipe = find_recipe(bug.repo)
    tests = recipe.tests if recipe is not None else ("tests",)
    runs = []
    for hash_seed in HASH_SEEDS:
        with bench.provider.start(intact.model_copy(update={"image": image})) as sandbox:
            runs.append(
                run_suite(
                    sandbox, WORKDIR, tests, hash_seed=hash_seed, timeout_s=BASELINE_TIMEOUT_S
                )
            )
    seen = sorted({test for run in runs for test in run.outcomes})
    trusted = tuple(
        test for test in seen if all(run.outcome(test) is Outcome.PASSED for run in runs)
    )
    if not trusted or not all(run.ended for run in runs):
        raise TaskSetupError(
            f"{bug.repo} at {bug.base_commit[:8]}: expected tests in {', '.join(tests)} that pass "
            f"each time, found none of {len(seen)}; does image {image} have what they need?"
        )
    logger.info("%s: trust %d/%d tests", bug.repo, len(trusted), len(seen))
    seconds = max(run.seconds for run in runs)
    return Baseline(image, tests, trusted, seconds, _reader(bench, bug))


def try_bug(bench: BugBench, bug: BugRow, base: Baseline) -> BugOutcome:
    """Never raises for what is wrong with one bug: that is the outcome."""
    limit_s = max(MIN_LIMIT_S, SLOWER * base.seconds)
    broken = _pseudo_task(bug).model_copy(update={"image": base.image, "setup_patch": bug.patch})
    try:
        with bench.provider.start(broken) as sandbox:
            run = run_suite(
                sandbox, WORKDIR, base.tests, hash_seed=HASH_SEEDS[0], timeout_s=limit_s
            )
        found = task_of(bug, base, run, limit_s=limit_s)
        return _graded(bench, bug, found) if isinstance(found, Task) else found
    except (TaskSetupError, TaskRowError, UnidiffParseError) as error:
        return _lost(bug, BugStage.APPLIES, str(error))


def task_of(bug: BugRow, base: Baseline, run: SuiteRun, *, limit_s: float) -> Task | BugOutcome:
    """What one run of the suite with the bug makes of it; `base.trusted` alone counts.

    The tests that must go on passing are those of the files that hold a failing one: grading runs
    whole files.
    """
    if not run.ended:
        return _lost(bug, BugStage.ENDS, f"no report after {run.seconds:.0f} s")
    failing = [test for test in base.trusted if run.outcome(test) in BROKEN]
    files = {_file(test) for test in failing}
    passing = [
        test
        for test in base.trusted
        if run.outcome(test) is Outcome.PASSED and _file(test) in files
    ]
    if not failing:
        return _lost(bug, BugStage.SEEN, "")
    if not passing:
        return _lost(bug, BugStage.SPARES, "")
    # An issue quotes a test that says something: one that failed by itself, the shortest name.
    said = [test for test in failing if run.crashes.get(test)] or failing
    quoted = min(said, key=lambda test: ("[" in test, len(test), test))
    row = {
        "instance_id": bug.instance_id,
        "repo": bug.repo,
        "base_commit": bug.base_commit,
        "patch": bug.patch,
        "problem_statement": bug_issue(
            bug.patch, quoted, run.crashes.get(quoted, ""), base.read_source
        ),
        "image_name": base.image,
        "FAIL_TO_PASS": failing,
        "PASS_TO_PASS": passing,
    }
    task = task_from_row(row, source=TaskSource.SWE_SMITH)
    return task.model_copy(update={"shell_setup": "", "test_timeout_s": limit_s})


def stages(outcomes: Iterable[BugOutcome]) -> list[StageCount]:
    """The counts of every stage, in order."""
    every = list(outcomes)
    lost = Counter(each.lost for each in every if each.lost is not None)
    found, count = [], len(every)
    for stage in BugStage:
        dropped = {stage.name.lower(): lost[stage]} if lost[stage] else {}
        kept = count - lost[stage]
        found.append(StageCount(stage=stage, seen=count, kept=kept, dropped=dropped))
        count = kept
    return found


def _graded(bench: BugBench, bug: BugRow, task: Task) -> BugOutcome:
    gold = bench.grader.grade(task, task.gold_patch)
    empty = bench.grader.grade(task, "") if gold.resolved else Reward(verdict=gold.verdict)
    _, problem = find_problem(gold, empty)
    if not gold.resolved:
        return _lost(bug, BugStage.GOLD, problem)
    other = [test for test in task.fail_to_pass if empty.tests.get(test) is Outcome.PASSED]
    other += [test for test in task.pass_to_pass if empty.tests.get(test) is not Outcome.PASSED]
    if problem or other:
        detail = problem or f"{other[0]} has another outcome the second time"
        return _lost(bug, BugStage.SAME, detail)
    return BugOutcome(instance_id=bug.instance_id, task=task, seconds=gold.seconds + empty.seconds)


def _lost(bug: BugRow, stage: BugStage, detail: str) -> BugOutcome:
    return BugOutcome(instance_id=bug.instance_id, lost=stage, detail=detail[:500])


def _file(test: str) -> str:
    return test.partition("::")[0]


def _pseudo_task(bug: BugRow) -> Task:
    """The intact repository as a task, for those who start sandboxes of tasks."""
    return Task(
        task_id=bug.instance_id,
        source=TaskSource.SWE_SMITH,
        repo=bug.repo,
        base_commit=bug.base_commit,
        problem="",
        image=f"swesmith/{bug.mirror.rpartition('/')[2].lower()}",
        gold_patch="",
        fail_to_pass=("unknown",),
    )


def _reader(bench: BugBench, bug: BugRow) -> ReadSource:
    """Files of the base commit, from the mirror; nothing outside of its exported tree."""
    root = bench.scratch / f"{bug.repo.replace('/', '__')}.{bug.base_commit}"
    git_dir = find_repository(bench.repos, bug.repo, bug.base_commit)
    if git_dir is not None and not root.exists():
        root.mkdir(parents=True)
        export_commit(git_dir, bug.base_commit, root)
    return reader_below(root)
