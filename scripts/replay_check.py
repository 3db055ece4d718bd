"""`contextrl replay --check`: many trajectories re-executed, and what was found, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import Field

from contextrl.agents.errors import AgentsError
from contextrl.agents.replay import Cause, ReplayReport, StepReplay, StepResult, replay
from contextrl.agents.types import Trajectory
from contextrl.agents.viewer.index import TrajectoryIndex
from contextrl.envs.errors import EnvsError
from contextrl.envs.types import Record
from contextrl.scripts.console import ScriptError
from contextrl.scripts.replay_tasks import Sandboxes, TaskBook

MAX_COMMAND_CHARS = 200
EXIT_REPRODUCED, EXIT_DIVERGED, EXIT_NOT_RUN = 0, 1, 2


class CheckSummary(Record):
    trajectories: int = 0
    reproduced: int = 0
    diverged: int = 0
    not_run: int = 0
    """Could not be repeated to the end, and had not diverged before."""
    steps_run: int = 0
    steps_reproduced: int = 0
    matches: dict[str, int] = Field(default_factory=dict)
    """Steps by the rule that made their observations equal."""
    unstable: int = 0
    """Steps in which repetitions differ from each other as well."""
    causes: dict[str, int] = Field(default_factory=dict)
    """Steps that diverged or had nothing to run, by why."""
    submissions_differ: int = 0
    submissions_unstable: int = 0

    @property
    def share(self) -> float | None:
        return self.steps_reproduced / self.steps_run if self.steps_run else None


class CheckReport(Record):
    summary: CheckSummary
    reports: tuple[ReplayReport, ...]

    @property
    def exit_code(self) -> int:
        if self.summary.diverged:
            return EXIT_DIVERGED
        return EXIT_NOT_RUN if self.summary.not_run or not self.reports else EXIT_REPRODUCED


def check(
    files: Sequence[Path],
    tasks: TaskBook,
    sandboxes: Sandboxes,
    *,
    only: str = "",
    to_step: int | None = None,
    limit: int | None = None,
    workers: int = 2,
) -> CheckReport:
    """One report per trajectory, in the order of the files. Raises named errors of bad input."""

    def check_one(trajectory: Trajectory) -> ReplayReport:
        try:
            task = sandboxes.ready(tasks.of(trajectory))
            return replay(trajectory, task, sandboxes.provider(), to_step=to_step)
        except (EnvsError, AgentsError, ScriptError) as error:
            return ReplayReport(
                trajectory_id=trajectory.trajectory_id,
                task_id=trajectory.task_id,
                error=f"{type(error).__name__}: {' '.join(str(error).split())}",
            )

    with ThreadPoolExecutor(max_workers=workers) as pool:
        reports = tuple(pool.map(check_one, _trajectories(files, only, limit)))
    return CheckReport(summary=summarise(reports), reports=reports)


def _trajectories(files: Sequence[Path], only: str, limit: int | None) -> Iterable[Trajectory]:
    found = 0
    for path in files:
        index = TrajectoryIndex(path)
        index.refresh()
        for row in index.rows:
            if limit is not None and found >= limit:
                return
            if only and row.trajectory_id != only:
                continue
            found += 1
            yield index.load(row.number)
    if not found:
        raise ScriptError(
            f"{', '.join(map(str, files))}: expected trajectories"
            f"{f' with id {only}' if only else ''}, found none"
        )


def summarise(reports: Sequence[ReplayReport]) -> CheckSummary:
    steps = [step for report in reports for step in report.steps]
    diverged = sum(report.diverged for report in reports)
    reproduced = sum(report.reproduced for report in reports)
    return CheckSummary(
        trajectories=len(reports),
        reproduced=reproduced,
        diverged=diverged,
        not_run=len(reports) - reproduced - diverged,
        steps_run=sum(report.n_run for report in reports),
        steps_reproduced=sum(step.result is StepResult.REPRODUCED for step in steps),
        matches=_counted(step.match for step in steps if step.result is StepResult.REPRODUCED),
        unstable=sum(step.result is StepResult.UNSTABLE for step in steps),
        causes=_counted(
            step.cause
            for step in steps
            if step.cause is not Cause.NONE and step.result is not StepResult.UNSTABLE
        ),
        submissions_differ=sum(report.submission_equal is False for report in reports),
        submissions_unstable=sum(report.submission_unstable for report in reports),
    )


def _counted(values: Iterable[object]) -> dict[str, int]:
    return dict(Counter(str(value) for value in values).most_common())


def lines(report: CheckReport) -> list[str]:
    """For people: what did not reproduce, then the sum. Output of the sandbox is made printable."""
    found = []
    for each in report.reports:
        for step in each.steps:
            if step is each.first_divergence or step.result is StepResult.UNSTABLE:
                found += _difference(each.trajectory_id, step)
        if each.submission_equal is False and not each.divergences:
            found.append(f"DIVERGED  {each.trajectory_id}: every step agrees, the diff does not")
        if each.submission_unstable:
            found.append(f"UNSTABLE  {each.trajectory_id}: the diff differs each time")
        if each.error:
            found.append(f"NOT RUN   {each.trajectory_id}: {_printable(each.error)}")
    total = report.summary
    share = "none run" if total.share is None else f"{total.share:.1%}"
    found.append(
        f"{total.trajectories} trajectories: {total.reproduced} reproduced, "
        f"{total.diverged} diverged, {total.not_run} not run"
    )
    found.append(
        f"{total.steps_reproduced} of {total.steps_run} steps reproduced ({share}): "
        + (", ".join(f"{name} {count}" for name, count in total.matches.items()) or "none")
    )
    others = {"unstable": total.unstable, **total.causes}
    if causes := ", ".join(f"{name} {count}" for name, count in others.items() if count):
        found.append(f"others: {causes}")
    if total.submissions_differ or total.submissions_unstable:
        found.append(
            f"diffs: {total.submissions_differ} differ, {total.submissions_unstable} unstable"
        )
    return found


def _difference(trajectory_id: str, step: StepReplay) -> list[str]:
    what = str(step.result).upper()
    return [
        f"{what:<9} {trajectory_id} at step {step.index + 1}: {step.cause}",
        f"          command   {_printable(step.command)[:MAX_COMMAND_CHARS]}",
        f"          recorded  {_printable(step.recorded_line)}",
        f"          repeated  {_printable(step.repeated_line)}",
    ]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
