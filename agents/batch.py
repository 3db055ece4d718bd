"""Many episodes at once. One bad task never ends the run, and what finished is on disk.

`rollout` turns every expected failure into a trajectory. What still escapes it is a bug met by one
task: it is logged with its traceback and counted, the others go on, and the report says so.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from contextrl.agents.episode import EpisodeKey, Witness
from contextrl.agents.errors import EpisodeCancelledError, RunStoreError
from contextrl.agents.store import RunStore
from contextrl.agents.types import Trajectory
from contextrl.envs.types import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EpisodeRequest:
    task: Task
    key: EpisodeKey

    @property
    def trajectory_id(self) -> str:
        return self.key.trajectory_id(self.task.task_id)


@dataclass(slots=True)
class BatchReport:
    requested: int = 0
    skipped: int = 0
    """Already in the store, and not excluded."""
    finished: int = 0
    crashed: list[str] = field(default_factory=list)
    """Ids of the episodes that met a bug. Not stored, so a resumed run plays them again."""


Play = Callable[[EpisodeRequest, threading.Event, Witness], Trajectory]
"""Plays one episode before a witness; raises `EpisodeCancelledError` soon after the event."""

Progress = Callable[[BatchReport, Trajectory | None], None]
"""Called from the caller's thread after each episode; None for one that crashed."""


def run_batch(
    requests: Iterable[EpisodeRequest],
    play: Play,
    store: RunStore,
    *,
    workers: int,
    on_progress: Progress | None = None,
    on_interrupt: Callable[[], None] | None = None,
    grace_s: float = 15.0,
) -> BatchReport:
    """Every request is played and stored, but for those whose episode the store has.

    One that was excluded is played again: its infrastructure may be mended.

    On Ctrl-C no episode starts any more, `on_interrupt` is called (close the sandboxes there, so
    that running commands end), workers get `grace_s` to leave, and KeyboardInterrupt is raised
    again. Raises `RunStoreError` as soon as one trajectory cannot be stored.
    """
    if workers < 1:
        raise ValueError(f"workers must be positive, got {workers}")
    wanted = list(requests)
    todo = [request for request in wanted if not store.is_settled(request.trajectory_id)]
    report = BatchReport(requested=len(wanted), skipped=len(wanted) - len(todo))
    if report.skipped:
        logger.info("%d of %d episodes are already stored", report.skipped, len(wanted))

    waiting: queue.SimpleQueue[EpisodeRequest] = queue.SimpleQueue()
    for request in todo:
        waiting.put(request)
    ended: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
    cancel = threading.Event()
    # Daemons: a worker stuck in a request to a dead server must not keep the process alive.
    threads = [
        threading.Thread(
            target=_work,
            args=(waiting, ended, play, store, cancel),
            name=f"episode-{n}",
            daemon=True,
        )
        for n in range(min(workers, len(todo)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in todo:
            _account(ended.get(), report, on_progress)
    except BaseException:
        cancel.set()
        if on_interrupt is not None:
            on_interrupt()
        _join(threads, grace_s)
        raise
    return report


@dataclass(frozen=True, slots=True)
class _Ended:
    request: EpisodeRequest
    trajectory: Trajectory | None = None
    fatal: RunStoreError | None = None


def _work(
    waiting: queue.SimpleQueue[EpisodeRequest],
    ended: queue.SimpleQueue[_Ended],
    play: Play,
    store: RunStore,
    cancel: threading.Event,
) -> None:
    while not cancel.is_set():
        try:
            request = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            with store.journal() as journal:
                trajectory = play(request, cancel, journal)
                if cancel.is_set() and trajectory.excluded:
                    return  # our own closing of its sandbox made it fail
                store.append(trajectory)
            ended.put(_Ended(request, trajectory))
        except EpisodeCancelledError:
            return
        except RunStoreError as error:
            cancel.set()  # what the others play could not be stored either
            ended.put(_Ended(request, fatal=error))
        except Exception:
            if cancel.is_set():
                return
            logger.exception("%s met a bug; the other episodes go on", request.trajectory_id)
            ended.put(_Ended(request))


def _account(ended: _Ended, report: BatchReport, on_progress: Progress | None) -> None:
    if ended.fatal is not None:
        raise ended.fatal
    if ended.trajectory is None:
        report.crashed.append(ended.request.trajectory_id)
    else:
        report.finished += 1
    if on_progress is not None:
        on_progress(report, ended.trajectory)


def _join(threads: Iterable[threading.Thread], grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive()]
    if stuck:
        logger.warning("%d episodes did not end within %.0f s: %s", len(stuck), grace_s, stuck)
