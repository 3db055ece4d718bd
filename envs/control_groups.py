"""Limits on a whole namespace sandbox: a control group of its own, where we may make one.

Both versions of the kernel's interface. Root may, and so may a user whose session was delegated a
subtree. A group lies below that of the driver where the kernel allows it, so that what bounds the
driver, such as a scheduler's limit, bounds its sandboxes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contextrl.envs.cleanup import owner_alive
from contextrl.envs.leases import lease
from contextrl.envs.types import Limit

ROOT = Path("/sys/fs/cgroup")
PREFIX = "contextrl-"
SPARE_PROCESSES = 8
"""Fewer left than this, and a process of ours may not start in it."""


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """One folder or, in the older interface, two; a process that writes itself there is in it."""

    memory: Path
    pids: Path
    """The same folder in the newer interface."""
    max_processes: int

    @classmethod
    def make(cls, *, memory_bytes: int, max_processes: int) -> ControlGroup | None:
        """None where no group can be made: then there are only limits for each process."""
        name = f"{PREFIX}{lease()}-{os.urandom(4).hex()}"
        with contextlib.suppress(OSError):
            for memory, pids in _places():
                group = cls(memory / name, pids / name, max_processes)
                try:
                    group._limit(memory_bytes)
                    return group
                except OSError:
                    group.remove()
        return None

    def _limit(self, memory_bytes: int) -> None:
        for folder in {self.memory, self.pids}:
            folder.mkdir()
        if self.memory == self.pids:
            _write(self.memory / "memory.max", memory_bytes)
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                _write(self.memory / "memory.swap.max", 0)
        else:
            _write(self.memory / "memory.limit_in_bytes", memory_bytes)
            with contextlib.suppress(OSError):
                _write(self.memory / "memory.memsw.limit_in_bytes", memory_bytes)
        _write(self.pids / "pids.max", self.max_processes)

    @property
    def doors(self) -> list[str]:
        """Files that a process writes its id to, to be in the group."""
        return sorted({str(folder / "cgroup.procs") for folder in (self.memory, self.pids)})

    @property
    def crowded(self) -> bool:
        """Whether so many processes run in it that none of ours may start."""
        with contextlib.suppress(OSError, ValueError):
            now = int((self.pids / "pids.current").read_text())
            return now > self.max_processes - SPARE_PROCESSES
        return False

    def counts(self) -> dict[Limit, int]:
        """How often the kernel enforced each limit, so far."""
        found = {}
        for limit, file, key in (
            (Limit.MEMORY, self.memory / "memory.events", "oom_kill"),
            (Limit.MEMORY, self.memory / "memory.oom_control", "oom_kill"),
            (Limit.PROCESSES, self.pids / "pids.events", "max"),
        ):
            with contextlib.suppress(OSError, ValueError):
                lines = dict(line.split(" ", 1) for line in file.read_text().splitlines())
                found[limit] = int(lines.get(key, 0))
        return found

    def kill_all_but_first(self, *, patience_s: float = 10.0) -> bool:
        """Whether no process is left but the first one inside and what holds it from outside.

        None can be started meanwhile, so a fork bomb is over.
        """
        deadline = time.monotonic() + patience_s
        _write(self.pids / "pids.max", 0)
        try:
            while victims := [pid for pid in self._members() if not _is_first(pid)]:
                for pid in victims:
                    self._kill(pid)
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
            return True
        finally:
            _write(self.pids / "pids.max", self.max_processes)

    def _kill(self, pid: int) -> None:
        """By a handle: between reading a number and using it, it may become another process's."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if pid in self._members():
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)

    def remove(self, *, patience_s: float = 5.0) -> None:
        """Gone, once its last process is. One that outlives our patience is swept later."""
        deadline = time.monotonic() + patience_s
        for folder in {self.memory, self.pids}:
            while folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                if time.monotonic() > deadline:
                    break
                time.sleep(0.002)

    def _members(self) -> list[int]:
        return [int(line) for line in (self.pids / "cgroup.procs").read_text().split()]


def remove_stale_groups() -> list[Path]:
    """No group is left whose driver on this host is gone."""
    removed = []
    with contextlib.suppress(OSError):
        for parent in {folder for parents in _places() for folder in parents}:
            for folder in sorted(parent.glob(f"{PREFIX}*-*-*-*")):
                host, pid, birth, *_ = folder.name.removeprefix(PREFIX).split("-")
                if host == lease().partition("-")[0] and not owner_alive(f"{pid}:{birth}"):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
                        removed.append(folder)
    return removed


def _places() -> Iterator[tuple[Path, Path]]:
    """Folders for memory and processes that could hold a group, the nearest to us first."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    if "memory" in own and "pids" in own:
        memory, pids = (ROOT / name / own[name] for name in ("memory", "pids"))
        if memory.is_dir() and pids.is_dir():
            yield memory, pids
        return
    # A group that holds processes passes no controllers on, so one further up has to.
    folder = ROOT / own.get("", "")
    while folder.is_relative_to(ROOT):
        with contextlib.suppress(OSError):
            passed_on = (folder / "cgroup.subtree_control").read_text().split()
            if {"memory", "pids"} <= set(passed_on) and os.access(folder, os.W_OK):
                yield folder, folder
        folder = folder.parent


def _is_first(pid: int) -> bool:
    """Whether it is process 1 of the sandbox, or what holds that from outside.

    Counted from our own namespace: one that the agent made inside would be a third.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) == 1 or numbers[1:] == ["1"]
    return False


def _write(file: Path, value: int) -> None:
    file.write_text(f"{value}\n")
