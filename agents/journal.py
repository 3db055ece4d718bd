"""Episodes that are still running, for those who watch: one small file each beside the store.

A file is written line by line while its episode runs and removed when the episode was stored or
given up. Its writer holds a lock on it as long as it lives, which tells an episode that runs from
one whose process was killed. A journal is a view and never the record: a store holds no unfinished
episode, and a journal that cannot be written costs no episode.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contextrl.agents.episode import EpisodeRecord, Stop
from contextrl.agents.manifest import brief
from contextrl.agents.types import Message, Step, StopReason, Trajectory

logger = logging.getLogger(__name__)

RUNNING = "running"
"""Folder of the journals, inside a run folder."""
SUFFIX = ".jsonl"
DRAFT_SUFFIX = ".draft"


class Journal:
    """The witness of one episode. Close it when the episode is stored, or never will be."""

    def __init__(self, folder: Path) -> None:
        """Nothing is written before the episode begins."""
        self._path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self._fd = -1

    def begin(self, record: EpisodeRecord) -> None:
        opening = record.freeze(Stop(StopReason.UNFINISHED))
        draft = self._path.with_suffix(DRAFT_SUFFIX)
        with self._or_without():
            self._path.parent.mkdir(exist_ok=True)
            self._fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._write(opening.model_dump(mode="json"))
            draft.rename(self._path)  # whoever sees it sees it locked

    def step(self, index: int, step: Step, *, done: bool) -> None:
        with self._or_without():
            self._write({"index": index, "done": done, "step": step.model_dump(mode="json")})

    def close(self) -> None:
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            self._give_up()

    def _write(self, content: dict[str, Any]) -> None:
        """A line, whole. No flush: it is for those who watch, and a dead machine has none."""
        if self._fd < 0:
            return
        line = json.dumps(content).encode() + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError(f"{self._path}: a line was not written whole; is the disk full?")

    @contextlib.contextmanager
    def _or_without(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning("an episode goes on without a journal to watch: %s", error)
            self._give_up()

    def _give_up(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEpisode:
    """What is known of an episode that is not stored yet."""

    trajectory: Trajectory
    """Its steps so far, ended by `UNFINISHED`; what it is doing is the detail.

    The last step may lack its observation.
    """
    working: bool
    """The last step's command is being run; otherwise the policy is writing, or it is graded."""
    alive: bool
    """False when its process is gone: nothing more will come."""


class Journals:
    """Follows the journals of a run folder; each look reads only what was added since."""

    def __init__(self, run: Path) -> None:
        self._folder = run / RUNNING
        self._read: dict[Path, _Reading] = {}

    def look(self) -> list[RunningEpisode]:
        """In the order they began. What cannot be read as a journal is left out."""
        self._read = {path: self._read.get(path, _Reading()) for path in _files(self._folder)}
        for path, reading in self._read.items():
            try:
                reading.go_on(path)
            except FileNotFoundError:  # stored meanwhile
                reading.opening = None
            except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
                logger.warning("%s: not a journal: %s", path, brief(error))
                reading.opening = None
        found = [each for each in map(_Reading.episode, self._read.values()) if each is not None]
        return sorted(found, key=lambda each: each.trajectory.started_at)


@dataclass(slots=True)
class _Reading:
    opening: Trajectory | None = None
    position: int = 0
    steps: dict[int, Step] = field(default_factory=dict)
    working: bool = False
    alive: bool = True

    def go_on(self, path: Path) -> None:
        with path.open("rb") as file:
            self.alive = _is_locked(file.fileno())
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # the rest of it comes, or its writer was killed
                self.position += len(line)
                self._take(json.loads(line))

    def _take(self, content: dict[str, Any]) -> None:
        if "index" not in content:
            self.opening = Trajectory.model_validate(content)
            self.steps = dict(enumerate(self.opening.steps))
        else:
            self.steps[int(content["index"])] = Step.model_validate(content["step"])
            self.working = not content["done"]

    def episode(self) -> RunningEpisode | None:
        if self.opening is None:
            return None
        steps = tuple(self.steps[index] for index in sorted(self.steps))
        new = steps[len(self.opening.steps) :]
        # Every command that ran has an observation, if only "(no output)".
        ended = bool(steps) and not steps[-1].observation
        doing = "command running" if self.working else "ended" if ended else "policy writing"
        trajectory = self.opening.model_copy(
            update={
                "steps": steps,
                "messages": (*self.opening.messages, *_said(new)),
                "stop_detail": doing if self.alive else "its process is gone",
            }
        )
        return RunningEpisode(trajectory=trajectory, working=self.working, alive=self.alive)


def _said(steps: tuple[Step, ...]) -> Iterator[Message]:
    for step in steps:
        yield Message(role="assistant", content=step.text)
        if step.observation:
            yield Message(role="user", content=step.observation)


def remove_dead(run: Path) -> None:
    """Journals whose process is gone are removed; those of other processes stay."""
    for path in _files(run / RUNNING, SUFFIX, DRAFT_SUFFIX):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if not _is_locked(file.fileno()):
                path.unlink()


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """Plain files only: a run folder from somebody else may hold pipes and links."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    return [
        Path(entry.path)
        for entry in entries
        if entry.name.endswith(suffixes or (SUFFIX,)) and entry.is_file(follow_symlinks=False)
    ]


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
