"""Public trajectories from anywhere -> `ForeignRun`, and an account of every row that is not one.

A source is a file, a folder or a name on the hub. The readers of formats are in agents/formats;
here is what pairs need on top: one stream over many sources, instances joined by id, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contextrl.agents.errors import ForeignRowError
from contextrl.agents.formats.files import RowAt, rows, trajectory_files
from contextrl.agents.formats.read import read_row, row_id
from contextrl.agents.formats.types import ForeignRun
from contextrl.envs.types import Record, Task
from contextrl.pairs.hub import fetched, hub_rows, on_hub
from contextrl.pairs.types import Instance

MAX_LISTED = 1000
"""Unreadable rows that a report names one by one; all of them are counted."""


class UnreadableRow(Record):
    """A row that gave no trajectory."""

    source: str
    number: int
    row_id: str
    """As far as the row says; empty when it says nothing."""
    reason: str


class SourceReport(Record):
    """What was read, and what was not."""

    rows: int
    read: int
    by_format: dict[str, int]
    unreadable: tuple[UnreadableRow, ...]
    """The first `MAX_LISTED`."""
    reasons: dict[str, int]


@dataclass(slots=True)
class Account:
    """Counts rows as they pass."""

    rows: int = 0
    by_format: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: list[UnreadableRow] = field(default_factory=list)

    def lost(self, at: RowAt, reason: str) -> None:
        self.reasons[reason] += 1
        if len(self.unreadable) < MAX_LISTED:
            name = row_id(at.row)
            self.unreadable.append(
                UnreadableRow(source=str(at.path), number=at.number, row_id=name, reason=reason)
            )

    def report(self) -> SourceReport:
        return SourceReport(
            rows=self.rows,
            read=self.by_format.total(),
            by_format=dict(sorted(self.by_format.items())),
            unreadable=tuple(self.unreadable),
            reasons=dict(self.reasons.most_common()),
        )


def parts_of(source: str) -> list[str]:
    """What can be read independently of each other: files, or one hub data set.

    Raises:
        ForeignFileError: nothing is there.
        SourceError: nor on the hub.
    """
    source = fetched(source)
    if on_hub(source):
        return [source]
    return [str(path) for path in trajectory_files(Path(source))]


def rows_of(part: str, wanted: Collection[int] | None = None) -> Iterator[RowAt]:
    """Raises `ForeignFileError` or `SourceError` when the part cannot be read at all."""
    return hub_rows(part, wanted) if on_hub(part) else rows(Path(part), wanted)


def read_part(
    part: str, account: Account, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, ForeignRun]]:
    """(row number, run) of every readable row; the others are in `account`."""
    for at in rows_of(part, wanted):
        account.rows += 1
        if at.error:
            account.lost(at, at.error)
            continue
        try:
            run = read_row(at.row, name=at.name)
        except ForeignRowError as error:
            account.lost(at, str(error))
            continue
        account.by_format[run.format] += 1
        yield at.number, run


def read_sources(sources: Iterable[str], account: Account) -> Iterator[ForeignRun]:
    """Every readable run of all sources, in order."""
    for source in sources:
        for part in parts_of(source):
            for _, run in read_part(part, account):
                yield run


def instance_of(run: ForeignRun, known: Mapping[str, Instance]) -> Instance:
    """The joined instance, else what the row says; a resolved run's own patch is its fix."""
    joined = known.get(run.trajectory.task_id)
    if joined is not None:
        return joined
    reward = run.trajectory.reward
    resolved = reward is not None and reward.resolved
    return Instance(
        task_id=run.trajectory.task_id,
        repo=run.repo,
        base_commit=run.base_commit,
        problem=run.problem,
        gold_patch=run.trajectory.submission if resolved else "",
    )


def instance_of_task(task: Task) -> Instance:
    """A task of ours, reduced to what pairs ask of it."""
    return Instance(
        task_id=task.task_id,
        repo=task.repo,
        base_commit=task.base_commit,
        problem=task.problem,
        gold_patch=task.gold_patch,
    )
