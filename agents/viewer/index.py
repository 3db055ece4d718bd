"""The table of contents of a trajectory file: small rows now, whole trajectories on demand.

A run of 10,000 trajectories is gigabytes; a row is a few hundred bytes. The index reads forward in
slices of time, so that a screen can draw in between, and again whenever the file has grown.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contextrl.agents.errors import RunStoreError
from contextrl.agents.manifest import brief
from contextrl.agents.store import TRAJECTORIES
from contextrl.agents.types import Trajectory
from contextrl.agents.viewer.outcomes import Failure, classify

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


@dataclass(slots=True)
class _Source:
    path: Path
    position: int = 0
    """Everything before it is in the index."""
    lines: int = 0


class TrajectoryIndex:
    """Rows of a run folder (its branches too), a `trajectories.jsonl`, or one trajectory's file."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet. Raises `RunStoreError` if there is nothing to read."""
        self.path = path
        self.rows: list[Row] = []
        self._places: list[tuple[Path, int, int]] = []
        """File, offset and length of each row's line."""
        if path.is_dir():
            main = path / TRAJECTORIES
            if not main.exists():
                raise RunStoreError(
                    f"{path}: expected a run folder, found no {TRAJECTORIES}; name the folder that "
                    "holds it, in a training run that is `episodes`"
                )
            self._sources = [_Source(main), _Source(path / BRANCHES / TRAJECTORIES)]
        elif path.is_file():
            self._sources = [_Source(path)]
        else:
            raise RunStoreError(f"{path}: expected a run folder or a trajectory file, found none")

    def refresh(self, budget_s: float | None = None) -> int:
        """Rows added from what the files hold now; stops soon after `budget_s`."""
        deadline = None if budget_s is None else time.monotonic() + budget_s
        before = len(self.rows)
        for source in self._sources:
            for offset, line in _new_lines(source):
                self._places.append((source.path, offset, len(line)))
                self.rows.append(_row(len(self.rows), line, source))
                if deadline is not None and time.monotonic() > deadline:
                    return len(self.rows) - before
        return len(self.rows) - before

    def load(self, number: int) -> Trajectory:
        """The whole trajectory of a row. Raises `RunStoreError` if it cannot be read."""
        path, offset, length = self._places[number]
        with path.open("rb") as file:
            file.seek(offset)
            line = file.read(length)
        try:
            return Trajectory.model_validate(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise RunStoreError(
                f"{path}: row {number + 1} is not a trajectory: {_brief(error)}"
            ) from error

    def find(self, trajectory_id: str) -> Row | None:
        return next((row for row in self.rows if row.trajectory_id == trajectory_id), None)

    def children(self, trajectory_id: str) -> list[Row]:
        return [row for row in self.rows if row.parent_id == trajectory_id]


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


def _new_lines(source: _Source) -> Iterator[tuple[int, bytes]]:
    """Whole lines past the position, which moves along. A torn last line waits to be finished.

    A file that was replaced by a shorter one has no new lines until it has outgrown the old one.
    """
    with contextlib.suppress(FileNotFoundError), source.path.open("rb") as file:
        file.seek(source.position)
        if source.path.suffix == ".json" and (whole := file.read()):  # one, over many lines
            offset, source.position = source.position, source.position + len(whole)
            yield offset, whole
            return
        for line in file:
            if not line.endswith(b"\n") and source.path.name == TRAJECTORIES:
                return
            offset = source.position
            source.position += len(line)
            source.lines += 1
            if line.strip():
                yield offset, line


def _row(number: int, line: bytes, source: _Source) -> Row:
    try:
        content = json.loads(line)
        return _row_of(number, content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        name = f"{source.path.name}:{source.lines}"
        return Row(number=number, trajectory_id=name, problem=_brief(error))


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


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return brief(error) if str(error) else type(error).__name__
