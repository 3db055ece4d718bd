"""`contextrl bench sandbox`: how fast Docker sandboxes start, answer and grade on this machine."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from docker import DockerClient

    from contextrl.envs.docker import DockerProvider
    from contextrl.envs.types import Sandbox, Task

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    name: str
    seconds: float
    """Median of the repetitions."""
    worst: float
    repetitions: int


def sandbox(
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions of each measurement.")] = 5,
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
            _measure("start to first output, alone", repeat, lambda: _first_output(provider, task)),
            _warm(provider, task, repeat),
            _one_command(provider, task),
            *(_many(provider, task, count) for count in (8, 16, 32)),
            _measure("grading beyond the tests", repeat, lambda: _grading(provider, task)),
        ]
    if as_json:
        for measurement in measurements:
            typer.echo(json.dumps(asdict(measurement)))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("measurement", "median s", "worst s", "n")
    for measurement in measurements:
        table.add_row(
            measurement.name,
            f"{measurement.seconds:.4f}",
            f"{measurement.worst:.4f}",
            str(measurement.repetitions),
        )
    Console().print(table)


def _measure(name: str, repeat: int, once: Callable[[], float]) -> Measurement:
    times = [once() for _ in range(repeat)]
    return Measurement(
        name=name, seconds=statistics.median(times), worst=max(times), repetitions=repeat
    )


def _first_output(provider: DockerProvider, task: Task) -> float:
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
    from contextrl.envs.images import build_repo_image
    from contextrl.envs.reverse import reverse_patch
    from contextrl.envs.types import Task, TaskSource

    with tempfile.TemporaryDirectory(prefix="contextrl-bench-") as scratch:
        tree = Path(scratch)
        (tree / "tiny.py").write_text(MODULE, encoding="utf-8")
        (tree / "test_tiny.py").write_text(TEST, encoding="utf-8")
        image = build_repo_image(
            client,
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
