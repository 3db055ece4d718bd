"""The mutation driver in namespaces over an unpacked root, for machines without an engine."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from contextrl.envs.bubblewrap import command_line
from contextrl.envs.container import SandboxLimits
from contextrl.envs.control_groups import ControlGroup
from contextrl.envs.leases import leased_folder
from contextrl.envs.mutation_runner import (
    JOB,
    PROCESSES,
    PROGRAM,
    PYTHON,
    Driver,
    DriverJob,
    StartDriver,
    driver_environment,
    driver_files,
    memory_gb,
    whole_lines,
)
from contextrl.envs.unpacked import INSIDE, read_root

DISK_MB = 1024
"""Of copies of the tree, one for each worker."""


def root_driver(roots: Path) -> StartDriver:
    """In one set of namespaces, gone with its first process."""

    @contextlib.contextmanager
    def start(image: str, job: DriverJob, hash_seed: int) -> Iterator[Driver]:
        files, root = read_root(roots, image)
        with leased_folder("contextrl-ns-") as control:
            control.chmod(0o755)
            mounts = control / "mounts"
            mounts.mkdir()
            for name, content in driver_files(job).items():
                (control / name).write_bytes(content)
                (control / name).chmod(0o444)
            limits = SandboxLimits(memory_mb=memory_gb(job) << 10, disk_mb=DISK_MB, pids=PROCESSES)
            group = ControlGroup.make(
                memory_bytes=(limits.memory_mb + limits.disk_mb) << 20, max_processes=PROCESSES
            )
            variables = " ".join(f"{k}={v}" for k, v in driver_environment(hash_seed).items())
            driver = shlex.join([PYTHON, f"{INSIDE}/{PROGRAM}", f"{INSIDE}/{JOB}"])
            command = command_line(
                (files,),
                root,
                limits,
                mounts=mounts,
                control=control,
                first_process=f"cd /tmp; {variables} {driver}",
                group=group,
            )
            with (control / "errors").open("wb") as errors:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                )
            try:
                yield _ProcessDriver(process, control / "errors")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()
                if group is not None:
                    group.remove()

    return start


class _ProcessDriver:
    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self._process, self._errors = process, errors

    def lines(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        yield from whole_lines(iter(lambda: self._process.stdout.read1(65536), b""))  # type: ignore

    def ended(self) -> tuple[int, str]:
        return self._process.wait(), self._errors.read_text(errors="replace")[-2000:]
