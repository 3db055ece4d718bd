"""A run folder: `manifest.json` says what was run, `trajectories.jsonl` holds what came of it.

One line is one trajectory, written whole or not at all: a line that a kill tore is cut off the next
time somebody appends, and passed over by readers. Any number of threads and processes may append.
An episode may be played again: of two lines with one id the later one is the episode.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from contextrl.agents.errors import RunStoreError
from contextrl.agents.journal import RUNNING, Journal, remove_dead
from contextrl.agents.manifest import MANIFEST, Manifest, brief, read_manifest
from contextrl.agents.types import SCHEMA_VERSION, StopReason, Trajectory

logger = logging.getLogger(__name__)

TRAJECTORIES = "trajectories.jsonl"

_EXCLUDED = frozenset(str(reason) for reason in StopReason if reason.excluded)


class RunStore:
    """Append trajectories, and know which are there. Use as a context manager."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(folder / TRAJECTORIES, flags, 0o644)
        with self._exclusive():
            self._cut_torn_line()
        self._excluded = {
            line["trajectory_id"]: _is_excluded(line) for line in _lines(folder / TRAJECTORIES)
        }

    @classmethod
    def open(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """A new run, or with `resume` the one in `folder` if its configuration is the same.

        Raises `RunStoreError` if the folder holds a run and neither is given, if it holds another
        configuration's, or if it cannot be written. `overwrite` deletes the run's two files and
        the journals of episodes that nobody plays any more.
        """
        manifest = Manifest.new(config)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if overwrite:
                for name in (TRAJECTORIES, MANIFEST):
                    (folder / name).unlink(missing_ok=True)
                remove_dead(folder)
            try:  # before any trajectory, so that a folder with trajectories has a manifest
                manifest.write_new(folder)
            except FileExistsError:
                wanted, manifest = manifest, read_manifest(folder)
                if not resume:
                    raise RunStoreError(
                        f"{folder}: expected no run, found one of {manifest.created}; continue it "
                        "with --resume, replace it with --overwrite, or choose another folder"
                    ) from None
                manifest.check_resumable(folder, wanted.config)
                remove_dead(folder)
                if manifest.finished:  # more is to come
                    manifest = manifest.reopened()
                    manifest.replace(folder)
            return cls(folder, manifest)
        except OSError as error:
            raise RunStoreError(f"run folder {folder}: cannot be written: {error}") from error

    def __contains__(self, trajectory_id: str) -> bool:
        """An excluded episode is in here too, see `is_settled`."""
        with self._lock:
            return trajectory_id in self._excluded

    def __len__(self) -> int:
        with self._lock:
            return len(self._excluded)

    def is_settled(self, trajectory_id: str) -> bool:
        """Stored, and not excluded: whoever goes on with the run need not play it again."""
        with self._lock:
            return not self._excluded.get(trajectory_id, True)

    def append(self, trajectory: Trajectory) -> None:
        """On disk when this returns, in the place of what was stored of this id.

        Raises `RunStoreError`, leaving no part of a line behind.
        """
        if trajectory.stop_reason is StopReason.UNFINISHED:
            raise ValueError(f"{trajectory.trajectory_id}: only what has ended is stored")
        # Not `model_dump_json`: it refuses the lone surrogates that a diff of latin-1 text holds.
        line = json.dumps(trajectory.model_dump(mode="json")).encode() + b"\n"
        try:
            with self._exclusive():
                self._cut_torn_line()
                end = os.lseek(self._fd, 0, os.SEEK_END)
                try:
                    written = os.write(self._fd, line)
                    if written != len(line):
                        raise OSError(f"{written} of {len(line)} bytes written; is the disk full?")
                    os.fsync(self._fd)
                except BaseException:
                    os.ftruncate(self._fd, end)
                    raise
                self._excluded[trajectory.trajectory_id] = trajectory.excluded
        except OSError as error:
            raise RunStoreError(
                f"run folder {self.folder}: {trajectory.trajectory_id} not stored: {error}"
            ) from error

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        """For one episode: who looks into the folder sees its steps, until this is left."""
        journal = Journal(self.folder / RUNNING)
        try:
            yield journal
        finally:
            journal.close()

    def finish(self) -> Manifest:
        """State in the manifest that the run is complete, with its counts."""
        lines = _lines(self.folder / TRAJECTORIES)
        reasons = {line["trajectory_id"]: line["stop_reason"] for line in lines}
        self.manifest = self.manifest.completed(Counter(reasons.values()))
        try:
            self.manifest.replace(self.folder)
        except OSError as error:
            raise RunStoreError(f"run folder {self.folder}: manifest: {error}") from error
        return self.manifest

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Alone among threads and processes. The lock of a killed process is gone with it."""
        with self._lock:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _cut_torn_line(self) -> None:
        size = os.lseek(self._fd, 0, os.SEEK_END)
        end = size
        while end and os.pread(self._fd, 1, end - 1) != b"\n":
            start = max(0, end - 65536)
            block = os.pread(self._fd, end - start, start)
            end = start + block.rfind(b"\n") + 1
        if end != size:
            os.ftruncate(self._fd, end)
            logger.warning(
                "%s: dropped a torn last line of %d bytes, left by a process that was killed",
                self.folder / TRAJECTORIES,
                size - end,
            )


def read_trajectories(folder: Path) -> Iterator[Trajectory]:
    """One at a time, in the order they ended; of an episode played again, how it ended last.

    Raises `RunStoreError` if there is a line it cannot read.
    """
    read_manifest(folder)
    path = folder / TRAJECTORIES
    # Read twice, for only the end of the file tells which of two lines counts.
    last = {line["trajectory_id"]: number for number, line in enumerate(_lines(path), start=1)}
    numbers = set(last.values())
    lines = itertools.islice(_lines(path), max(numbers, default=0))
    for number, line in enumerate(lines, start=1):
        if number not in numbers:
            continue
        try:
            yield Trajectory.model_validate(line)
        except ValidationError as error:
            raise RunStoreError(f"{path}:{number}: not a trajectory: {brief(error)}") from error


def _is_excluded(line: Mapping[str, Any]) -> bool:
    """As `Trajectory.excluded`, of what was read from a file."""
    return line["stop_reason"] in _EXCLUDED or bool(line.get("grading_error"))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Parsed lines of a trajectory file; a torn last one is left out, and said in the log."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                logger.warning("%s: the last line is torn and not read", path)
                return
            try:
                content = json.loads(line)
                version = content["schema_version"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunStoreError(f"{path}:{number}: not a trajectory: {brief(error)}") from error
            if version != SCHEMA_VERSION:
                raise RunStoreError(
                    f"{path}:{number}: expected schema {SCHEMA_VERSION}, found {version}"
                )
            for key in ("trajectory_id", "stop_reason"):
                if not isinstance(content.get(key), str):
                    raise RunStoreError(f"{path}:{number}: not a trajectory: it has no {key}")
            yield content
