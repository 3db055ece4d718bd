"""The table of contents of a trajectory file: small rows now, whole trajectories on demand.

A run of 10,000 trajectories is gigabytes; a row is a few hundred bytes. The index reads forward in
slices of time, so that a screen can draw in between, and again whenever the file has grown.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextrl.agents.errors import AgentsError, RunStoreError
from contextrl.agents.formats.read import read_row, row_id
from contextrl.agents.journal import Journals, RunningEpisode
from contextrl.agents.manifest import brief
from contextrl.agents.store import TRAJECTORIES
from contextrl.agents.types import Trajectory
from contextrl.agents.viewer.outcomes import Failure, classify
from contextrl.agents.viewer.sources import LineSource, Place, Source, WholeSource

BRANCHES = "branches"
"""A run folder inside a run folder: what was branched off its trajectories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trajectory, in what a table shows of it."""

    number: int
    """Its place in the index."""
    trajectory_id: str
    task_id: str = ""
    phase: str = ""
    train_step: int = 0
    sample: int = 0
    policy: str = ""
    turns: int = 0
    sampled_tokens: int = 0
    score: float | None = None
    stop_reason: str = ""
    failure: Failure = Failure.UNREADABLE
    seconds: float = 0.0
    parent_id: str = ""
    """Of a branch: the trajectory it left, and the step before which it did."""
    parent_step: int = 0
    problem: str = ""
    """Why the line cannot be read."""


class TrajectoryIndex:
    """Rows of a run folder (its branches too), or of a file in any format that the miner reads."""

    def __init__(self, path: Path, *, branches: Path | None = None) -> None:
        """Nothing is read yet. `branches` is the folder of what was branched off, if it is not that
        of the run; of a folder that is not its own only what left these trajectories is shown.

        Raises `RunStoreError` if there is nothing to read.
        """
        self.path = path
        self.rows: list[Row] = []
        self.replaced = 0
        """How often a row took the place of an earlier one: its episode was played again."""
        self._number: dict[str, int] = {}
        """Trajectory id to row."""
        self._journals = Journals(path)
        self._places: list[tuple[Source, Place]] = []
        self._sources: list[Source]
        if path.is_dir():
            main = path / TRAJECTORIES
            if not main.exists():
                raise RunStoreError(
                    f"{path}: expected a run folder, found no {TRAJECTORIES}; name the folder that "
                    "holds it, in a training run that is `episodes`"
                )
            self._sources = [LineSource(main)]
            branches = branches or path / BRANCHES
        elif path.is_file():
            self._sources = [LineSource(path) if path.suffix == ".jsonl" else WholeSource(path)]
        else:
            raise RunStoreError(f"{path}: expected a run folder or a trajectory file, found none")
        # Elsewhere two rows of one id may be two episodes.
        self._ours = self._sources[0] if self._sources[0].path.name == TRAJECTORIES else None
        self._branches = None if branches is None else LineSource(branches / TRAJECTORIES)
        self._may_be_others = branches is not None and branches != path / BRANCHES
        if self._branches is not None:
            self._sources.append(self._branches)

    def refresh(self, budget_s: float | None = None) -> int:
        """Rows added from what the files hold now; stops soon after `budget_s`."""
        deadline = None if budget_s is None else time.monotonic() + budget_s
        before = len(self.rows)
        for source in self._sources:
            for place, raw in source.new():
                row = _row(len(self.rows), raw, source.path)
                foreign = self._may_be_others and source is self._branches
                if not foreign or row.parent_id in self._number:
                    self._take(row, source, place)
                if deadline is not None and time.monotonic() > deadline:
                    return len(self.rows) - before
        return len(self.rows) - before

    def _take(self, row: Row, source: Source, place: Place) -> None:
        """Of an episode that was played again the later row counts, as for who reads the store."""
        known = self._number.get(row.trajectory_id)
        if known is not None and source is self._ours and not row.problem:
            self.rows[known] = dataclasses.replace(row, number=known)
            self._places[known] = (source, place)
            self.replaced += 1
            return
        self._number.setdefault(row.trajectory_id, row.number)
        self.rows.append(row)
        self._places.append((source, place))

    def load(self, number: int) -> Trajectory:
        """The whole trajectory of a row. Raises `RunStoreError` if it cannot be read."""
        source, place = self._places[number]
        try:
            return read_row(source.content(place), name=source.path.name).trajectory
        except (AgentsError, ValueError, RecursionError) as error:
            raise RunStoreError(
                f"{source.path}: row {number + 1} is not a trajectory: {brief(error)}"
            ) from error

    def running(self) -> list[RunningEpisode]:
        """Those that the run has not stored yet."""
        return self._journals.look()

    def current(self, trajectory_id: str) -> Trajectory | None:
        """As it is now: running, or stored meanwhile; None if it is neither any more.

        Raises `RunStoreError` if what is stored cannot be read.
        """
        for each in self.running():
            if each.trajectory.trajectory_id == trajectory_id:
                return each.trajectory
        self.refresh()
        row = self.find(trajectory_id)
        return self.load(row.number) if row is not None else None

    def find(self, trajectory_id: str) -> Row | None:
        return next((row for row in self.rows if row.trajectory_id == trajectory_id), None)


def in_tree_order(rows: list[Row]) -> list[tuple[int, Row]]:
    """Depth and row: every branch below the trajectory it left, else in the order given."""
    present = {row.trajectory_id for row in rows}
    children: dict[str, list[Row]] = {}
    for row in rows:
        if row.parent_id in present:
            children.setdefault(row.parent_id, []).append(row)
    found: list[tuple[int, Row]] = []
    seen: set[int] = set()
    stack = [(0, row) for row in reversed(rows) if row.parent_id not in present]
    while stack:
        depth, row = stack.pop()
        if row.number in seen:  # two trajectories of one id, or a ring of hostile parents
            continue
        seen.add(row.number)
        found.append((depth, row))
        stack += [(depth + 1, child) for child in reversed(children.get(row.trajectory_id, []))]
    return found + [(0, row) for row in rows if row.number not in seen]


def _row(number: int, raw: object, path: Path) -> Row:
    """Our own lines are read without building a `Trajectory`: that is most of the time saved."""
    try:
        if isinstance(raw, bytes):
            raw = json.loads(raw)
        if isinstance(raw, Exception):
            raise raw
        if not isinstance(raw, dict) or "schema_version" not in raw:
            run = read_row(raw, name=path.name)
            raw = run.trajectory.model_dump(mode="json")
        return _row_of(number, raw)
    except (AgentsError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        name = row_id(raw) or f"{path.name}:{number + 1}"
        problem = brief(error) if str(error) else type(error).__name__
        return Row(number=number, trajectory_id=name, problem=problem)


def _row_of(number: int, content: dict[str, Any]) -> Row:
    """From parsed JSON, unvalidated: a wrong type shows as an error of the row, or as text."""
    reward = content.get("reward")
    tokens = content.get("tokens")
    verdict = None if reward is None else str(reward["verdict"])
    failure = classify(
        stop_reason=str(content["stop_reason"]),
        verdict=verdict,
        graded_in_vain=bool(content.get("grading_error")),
        has_change=bool(str(content.get("submission", "")).strip()),
    )
    branch = content.get("branch") or {}
    return Row(
        number=number,
        trajectory_id=str(content["trajectory_id"]),
        task_id=str(content["task_id"]),
        phase=str(content.get("phase", "")),
        train_step=int(content.get("train_step", 0)),
        sample=int(content.get("sample", 0)),
        policy=str(content["policy"]),
        turns=len(content.get("steps", ())),
        sampled_tokens=sum(tokens["response_mask"]) if tokens else 0,
        score=None if verdict is None else float(failure is Failure.RESOLVED),
        stop_reason=str(content["stop_reason"]),
        failure=failure,
        seconds=float(content.get("timings", {}).get("total_s", 0.0)),
        parent_id=str(branch.get("parent_id", "")),
        parent_step=int(branch.get("step", 0)),
    )
