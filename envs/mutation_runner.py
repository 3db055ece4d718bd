"""Many short test runs in one contained, networkless sandbox: the host's side of the driver."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from docker.types import LogConfig
from pydantic import ValidationError
from urllib3.exceptions import HTTPError

from contextrl.envs.cleanup import labels
from contextrl.envs.engine import engine_boundary
from contextrl.envs.errors import MutationError, SandboxError
from contextrl.envs.types import Outcome, Record

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

PYTHON = "/opt/venv/bin/python"
PROGRAM, JOB = "mutation_driver.py", "job.json"
PROCESSES = 256
OWNER = 1000
LEASE_S = 3600.0
"""After this long `contextrl clean` removes the container whoever owns it."""


class Ended(StrEnum):
    """How one run of the tests came to its end."""

    REPORTED = "reported"
    CPU_LIMIT = "cpu-limit"
    WALL_LIMIT = "wall-limit"
    NO_REPORT = "no-report"
    """The process died without a word, e.g. of its memory limit."""


class SuiteRun(Record):
    """Some tests of the tree, with one line of one file replaced unless `file` is empty."""

    run_id: str
    tests: tuple[str, ...]
    file: str = ""
    line: int = 0
    text: str = ""
    trace: bool = False
    """Report which source lines each test entered."""


class SuiteReport(Record):
    run_id: str
    ended: Ended
    outcomes: dict[str, Outcome]
    """Of the tests that ran; pytest's names, relative to the tree."""
    crashes: dict[str, str]
    """First line of the error message of each test that failed."""
    touched: dict[str, tuple[tuple[str, int], ...]]
    """For each test, the file and first line of every function object that it entered."""
    seconds: float

    def outcome(self, test: str) -> Outcome:
        return self.outcomes.get(test, Outcome.MISSING)


class DriverJob(Record):
    tree: str
    tests: str
    sources: tuple[str, ...]
    runs: tuple[SuiteRun, ...]
    workers: int
    cpu_s: int
    """Of one run with a replaced line; runs of the intact tree get ten times as much."""
    wall_s: float


class Driver(Protocol):
    """The driver at work in an image."""

    def lines(self) -> Iterator[bytes]:
        """Its reports as it prints them. Raises `SandboxError` if it goes silent."""
        ...

    def ended(self) -> tuple[int, str]:
        """Its exit status and the last lines of what it complained about."""
        ...


StartDriver = Callable[[str, DriverJob, int], AbstractContextManager[Driver]]
"""(image, job, hash seed); nothing of it is left at the end of the block."""


def run_suites(
    start: StartDriver,
    image: str,
    job: DriverJob,
    *,
    hash_seed: int,
    on_report: Callable[[SuiteReport], None] = lambda report: None,
) -> dict[str, SuiteReport]:
    """One report for every run of `job`, by run id.

    `hash_seed` fixes the order of sets, so that two calls with one seed say the same and two
    calls with different seeds show what depends on that order.

    Raises:
        MutationError: the driver stopped early; the message ends with its last line.
        SandboxError: the place it runs in failed.
    """
    reports: dict[str, SuiteReport] = {}
    with start(image, job, hash_seed) as driver:
        for line in driver.lines():
            report = _parse(line)
            reports[report.run_id] = report
            on_report(report)
        status, errors = driver.ended()
    if status != 0 or len(reports) != len(job.runs):
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise MutationError(
            f"test driver in {image}: expected {len(job.runs)} reports, "
            f"found {len(reports)} and exit status {status}: {last}"
        )
    return reports


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pending = b""
    for chunk in chunks:
        *whole, pending = (pending + chunk).split(b"\n")
        yield from whole


def driver_files(job: DriverJob) -> dict[str, bytes]:
    """The driver and its job, by name."""
    return {
        PROGRAM: Path(__file__).with_name(PROGRAM).read_bytes(),
        JOB: json.dumps(job.model_dump(mode="json")).encode(),
    }


def driver_environment(hash_seed: int) -> dict[str, str]:
    return {"PYTHONHASHSEED": str(hash_seed), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def docker_driver(client: DockerClient) -> StartDriver:
    """In a container of its own, removed at the end."""

    @contextlib.contextmanager
    def start(image: str, job: DriverJob, hash_seed: int) -> Iterator[Driver]:
        with engine_boundary(f"running tests in image {image}"):
            container = _create(client, image, job, hash_seed)
            try:
                container.put_archive("/", _archive(job))
                container.start()
                yield _ContainerDriver(container)
            finally:
                container.remove(force=True, v=True)

    return start


class _ContainerDriver:
    def __init__(self, container: Container) -> None:
        self._container = container

    def lines(self) -> Iterator[bytes]:
        try:
            yield from whole_lines(
                self._container.logs(stream=True, follow=True, stdout=True, stderr=False)
            )
        except HTTPError as error:  # reading from the stream is not wrapped by the SDK
            name = self._container.short_id
            raise SandboxError(f"test driver {name} went silent: {error}") from error

    def ended(self) -> tuple[int, str]:
        status = int(self._container.wait()["StatusCode"])
        said = self._container.logs(stdout=False, stderr=True, tail=5)
        return status, said.decode(errors="replace")


def _create(client: DockerClient, image: str, job: DriverJob, hash_seed: int) -> Container:
    memory = f"{memory_gb(job)}g"
    return client.containers.create(
        image,
        [PYTHON, f"/driver/{PROGRAM}", f"/driver/{JOB}"],
        entrypoint="",
        user=str(OWNER),
        working_dir="/tmp",
        environment=driver_environment(hash_seed),
        network_mode="none",
        mem_limit=memory,
        memswap_limit=memory,
        pids_limit=PROCESSES,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        init=True,
        log_config=LogConfig(type=LogConfig.types.JSON),  # whatever the engine's default is
        labels=labels("tasks-build", lease_s=LEASE_S),
    )


def memory_gb(job: DriverJob) -> int:
    """Of all its processes: the driver limits each run to one GiB."""
    return job.workers + 1


def _archive(job: DriverJob) -> bytes:
    """`/driver` with the driver and its job, as `put_archive` wants it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in driver_files(job).items():
            member = tarfile.TarInfo(f"driver/{name}")
            member.size, member.mode = len(content), 0o444
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _parse(line: bytes) -> SuiteReport:
    try:
        return SuiteReport.model_validate_json(line)
    except ValidationError as error:
        raise MutationError(f"test driver: expected a report, found {line[:200]!r}") from error
