"""`contextrl bench sandbox`: how fast sandboxes start, answer and grade here, and others do."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from docker import DockerClient

    from contextrl.envs.docker import DockerProvider
    from contextrl.envs.types import Sandbox, SandboxProvider, Task

MODULE = "def add(a, b):\n    return a + b\n"
TEST = "from tiny import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
BUG = """\
--- a/tiny.py
+++ b/tiny.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a + b
+    return a - b
"""


OURS = "contextrl"
ALONE = "start to first output, alone"
MEMORY = "memory of a waiting sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    peer: str = OURS
    name: str
    median: float
    worst: float
    repetitions: int
    unit: str = "s"


def sandbox(
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions of each measurement.")] = 5,
    against: Annotated[
        Path | None,
        typer.Option(help="A Python that has mini-swe-agent and swe-rex: measure them too."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Measure start to first output, one command, many at once, and grading beyond the tests."""
    from contextrl.envs.docker import DockerProvider
    from contextrl.envs.engine import connect

    client = connect()
    task = _task(client)
    with DockerProvider(client) as provider:
        _first_output(provider, task)  # the engine's own caches
        measurements = [
            _measure(ALONE, repeat, lambda: _first_output(provider, task)),
            _warm(provider, task, repeat),
            _one_command(provider, task),
            _memory(client, provider, task, repeat),
            *(_many(provider, task, count) for count in (8, 16, 32)),
            _measure("grading beyond the tests", repeat, lambda: _grading(provider, task)),
            *_namespace(client, task, repeat),
        ]
    if against is not None:
        measurements += _peers(client, against, repeat)
    if as_json:
        for measurement in measurements:
            typer.echo(json.dumps(asdict(measurement)))
        return

    from rich.console import Console
    from rich.table import Table

    ours = {one.name: one.median for one in measurements if one.peer == OURS}
    table = Table("system", "measurement", "median", "worst", "unit", "n", "times ours")
    for measurement in measurements:
        ratio = measurement.median / ours[measurement.name]
        table.add_row(
            measurement.peer,
            measurement.name,
            f"{measurement.median:.4f}",
            f"{measurement.worst:.4f}",
            measurement.unit,
            str(measurement.repetitions),
            "" if measurement.peer == OURS else f"{ratio:.1f}",
        )
    Console(width=max(Console().width, 100)).print(table)
    typer.echo(f"load average at the end: {os.getloadavg()[0]:.1f}", err=True)


def _namespace(client: DockerClient, task: Task, repeat: int) -> list[Measurement]:
    """Nothing, with a line on stderr, where namespaces cannot be made."""
    from contextrl.envs.errors import EngineUnavailableError
    from contextrl.envs.namespace import NamespaceProvider
    from contextrl.envs.unpacked import unpack

    with tempfile.TemporaryDirectory(prefix="contextrl-bench-") as roots:
        try:
            provider = NamespaceProvider(Path(roots))
        except EngineUnavailableError as error:
            typer.echo(f"namespace sandboxes not measured: {error}", err=True)
            return []
        unpack(client, task.image, Path(roots))
        with provider:
            _first_output(provider, task)
            start = _measure(
                "start to first output, namespaces", repeat, lambda: _first_output(provider, task)
            )
            with provider.start(task) as sandbox:
                echo = lambda: sandbox.exec("echo hi", timeout_s=30.0).seconds  # noqa: E731
                return [start, _measure("one `echo`, namespaces", 200, echo)]


def _peers(client: DockerClient, python: Path, repeat: int) -> list[Measurement]:
    """Both start from one image that has swe-rex's server, so that it need not be installed."""
    from contextrl.envs.builder import EngineImages
    from contextrl.envs.images import build_repo_image

    with tempfile.TemporaryDirectory(prefix="contextrl-bench-") as scratch:
        (Path(scratch) / "tiny.py").write_text(MODULE, encoding="utf-8")
        requirements = ["pytest==8.3.4", "swe-rex==1.4.0"]
        image = build_repo_image(
            EngineImages(client),
            name="contextrl-bench-peers",
            tree=Path(scratch),
            requirements=requirements,
        )
    command = [str(python), str(Path(__file__).with_name("bench_peers.py")), image, str(repeat)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-200:]
        typer.echo(f"the peers were not all measured: {said}", err=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [Measurement(**row) for row in rows]


def _measure(name: str, repeat: int, once: Callable[[], float]) -> Measurement:
    times = [once() for _ in range(repeat)]
    return Measurement(
        name=name, median=statistics.median(times), worst=max(times), repetitions=repeat
    )


def _first_output(provider: SandboxProvider, task: Task) -> float:
    started = time.monotonic()
    with provider.start(task) as sandbox:
        sandbox.exec("echo hi", timeout_s=30.0)
        return time.monotonic() - started


def _warm(provider: DockerProvider, task: Task, repeat: int) -> Measurement:
    provider.prewarm(task.image, repeat)
    return _measure(
        "start to first output, warm pool", repeat, lambda: _first_output(provider, task)
    )


def _one_command(provider: DockerProvider, task: Task) -> Measurement:
    with provider.start(task) as sandbox:
        return _measure("one `echo`", 200, lambda: sandbox.exec("echo hi", timeout_s=30.0).seconds)


def _memory(client: DockerClient, provider: DockerProvider, task: Task, repeat: int) -> Measurement:
    """What the kernel counts for a container that waits for its next command, file cache aside."""

    def once() -> float:
        with provider.start(task) as sandbox:
            sandbox.exec("echo hi", timeout_s=30.0)
            memory = client.api.stats(sandbox.container.id, stream=False)["memory_stats"]
        counts = memory.get("stats", {})
        cache = counts.get("total_inactive_file", counts.get("inactive_file", 0))
        return float(memory["usage"] - cache) / 1e6

    measured = _measure(MEMORY, min(repeat, 3), once)
    return replace(measured, unit="MB")


def _many(provider: DockerProvider, task: Task, count: int) -> Measurement:
    def start(_: int) -> Sandbox:
        sandbox = provider.start(task)
        sandbox.exec("echo hi", timeout_s=60.0)
        return sandbox

    def once() -> float:
        started = time.monotonic()
        sandboxes = list(pool.map(start, range(count)))
        seconds = time.monotonic() - started
        list(pool.map(lambda sandbox: sandbox.close(), sandboxes))
        return seconds

    with ThreadPoolExecutor(count) as pool:
        return _measure(f"start to first output, {count} at once", 1, once)


def _grading(provider: DockerProvider, task: Task) -> float:
    from contextrl.envs.grading import DockerGrader

    reward = DockerGrader(provider).grade(task, task.gold_patch)
    if not reward.resolved:
        raise AssertionError(f"the benchmark's own task did not resolve: {reward.detail}")
    return reward.seconds - reward.test_seconds


def _task(client: DockerClient) -> Task:
    from contextrl.envs.builder import EngineImages
    from contextrl.envs.images import build_repo_image
    from contextrl.envs.reverse import reverse_patch
    from contextrl.envs.types import Task, TaskSource

    with tempfile.TemporaryDirectory(prefix="contextrl-bench-") as scratch:
        tree = Path(scratch)
        (tree / "tiny.py").write_text(MODULE, encoding="utf-8")
        (tree / "test_tiny.py").write_text(TEST, encoding="utf-8")
        image = build_repo_image(
            EngineImages(client),
            name="contextrl-bench",
            tree=tree,
            requirements=["pytest==8.3.4"],
        )
    return Task(
        task_id="bench",
        source=TaskSource.MUTATION,
        repo="contextrl/bench",
        base_commit="0" * 40,
        problem="add subtracts",
        image=image,
        setup_patch=BUG,
        gold_patch=reverse_patch(BUG),
        fail_to_pass=("test_tiny.py::test_add",),
    )
