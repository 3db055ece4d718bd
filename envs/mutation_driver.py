"""Runs inside the sandbox: many short pytest runs over one tree, each in a forked process.

Standard library and pytest only, nothing of this package: the file is copied into a container and
started there as `python mutation_driver.py JOB`. It reads a `DriverJob` and prints a `SuiteReport`
a line; `mutation_runner` owns both forms. A run costs 0.1 s because it is a fork of a process that
has pytest imported, over a tree whose test modules are compiled.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COPY = "/tmp/t{:02d}"  # as long as /testbed: pytest cuts a message with a path in the same place
MEMORY_BYTES = 1 << 30
QUIET = ["-q", "--tb=short"]
QUIET += ["-pno:cacheprovider", "-pno:junitxml", "-pno:faulthandler", "-pno:pastebin"]
QUIET += ["-pno:stepwise", "-pno:debugging", "-pno:doctest"]
CRASH_CHARS = 400
WARM_UP_S = 120.0

job: dict[str, Any] = {}
tree = Path()


def main() -> None:
    global job
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    copies = [Path(COPY.format(number)) for number in range(job["workers"])]
    shutil.copytree(job["tree"], copies[0], symlinks=True)
    warm_up(copies[0])
    for copy in copies[1:]:
        shutil.copytree(copies[0], copy, symlinks=True)  # keeps times: .pyc stay valid
    trees: multiprocessing.Queue[str] = multiprocessing.Queue()
    for copy in copies:
        trees.put(str(copy))
    with multiprocessing.Pool(job["workers"], initializer=take_tree, initargs=(trees,)) as pool:
        for report in pool.imap_unordered(run, job["runs"]):
            print(json.dumps(report), flush=True)


def warm_up(copy: Path) -> None:
    """Leave compiled modules in `copy`, and import here all that the tests import from outside it.

    What the parent has imported costs its children nothing.
    """
    collect = {"tests": [job["tests"]], "trace": False, "file": ""}

    def work(report: dict[str, Any]) -> None:
        pytest_main(copy, ["--collect-only"], collect, report, warm_up=True)
        report["modules"] = [
            name
            for name, module in sys.modules.items()
            if (origin := getattr(module, "__file__", None)) and copy not in Path(origin).parents
        ]

    for name in forked(work, WARM_UP_S).get("modules", ()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def take_tree(trees: multiprocessing.Queue[str]) -> None:
    global tree
    tree = Path(trees.get())
    os.chdir(tree)
    gc.freeze()  # a collection in a child would copy every page it shares with us
    gc.disable()


def run(wanted: dict[str, Any]) -> dict[str, Any]:
    """One `SuiteReport`: the wanted tests on the tree with at most one line replaced."""
    with replaced_line(wanted) if wanted["file"] else contextlib.nullcontext():
        started = time.monotonic()
        report = forked(lambda report: pytest_main(tree, [], wanted, report), job["wall_s"])
    report["run_id"] = wanted["run_id"]
    report["seconds"] = time.monotonic() - started
    return report


@contextlib.contextmanager
def replaced_line(wanted: dict[str, Any]) -> Iterator[None]:
    """The file differs in one line, and in its time, so that no compiled form of it is trusted."""
    path = tree / wanted["file"]
    original, times = path.read_bytes(), path.stat()
    lines = original.decode().split("\n")
    lines[wanted["line"] - 1] = wanted["text"]
    path.write_bytes("\n".join(lines).encode())
    os.utime(path, (times.st_atime, times.st_mtime + 1000))
    try:
        yield
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def forked(work: Any, wall_s: float) -> dict[str, Any]:
    """What `work` put into its dict, in a child that cannot outlive `wall_s` or its CPU limit."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        status = 1
        try:
            report: dict[str, Any] = {"outcomes": {}, "crashes": {}, "touched": {}}
            work(report)
            with os.fdopen(writer, "wb") as stream:
                stream.write(json.dumps(report).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    received, deadline = b"", time.monotonic() + wall_s
    ended = "wall-limit"
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            ended = "reported"
            break
        received += chunk
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        ended = "cpu-limit"
    elif ended == "reported" and not received:
        ended = "no-report"
    report = json.loads(received) if ended == "reported" else {}
    return {"ended": ended, "outcomes": {}, "crashes": {}, "touched": {}, **report}


def pytest_main(
    copy: Path,
    options: list[str],
    wanted: dict[str, Any],
    report: dict[str, Any],
    *,
    warm_up: bool = False,
) -> None:
    if not warm_up:  # it may be slow, and it is what writes .pyc files
        limit = job["cpu_s"] * (1 if wanted["file"] else 10)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.dont_write_bytecode = not warm_up
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    plugin = Recorder(copy, report, wanted["trace"])
    pytest.main([*QUIET, f"--rootdir={copy}", *options, *wanted["tests"]], plugins=[plugin])


class Recorder:
    """A pytest plugin: outcome and crash line of each test, and which lines it entered."""

    def __init__(self, copy: Path, report: dict[str, Any], trace: bool) -> None:
        self.sources = {str(copy / source): source for source in job["sources"]}
        self.copy = copy
        self.report = report
        self.trace = trace

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcomes = self.report["outcomes"]
        if report.when == "call" and report.nodeid not in outcomes:
            outcomes[report.nodeid] = report.outcome
        elif report.when != "call" and report.outcome != "passed":
            outcomes[report.nodeid] = "skipped" if report.skipped else "error"
        crash = getattr(report.longrepr, "reprcrash", None)
        if report.failed and crash is not None and report.nodeid not in self.report["crashes"]:
            lines = str(crash.message).splitlines() or [""]
            shown = lines[0].replace(str(self.copy), job["tree"])
            self.report["crashes"][report.nodeid] = shown[:CRASH_CHARS]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        if not self.trace:
            yield
            return
        entered: set[tuple[str, int]] = set()

        def profile(frame: Any, event: str, argument: object) -> None:
            if event == "call" and frame.f_code.co_filename in self.sources:
                entered.add((self.sources[frame.f_code.co_filename], frame.f_code.co_firstlineno))

        sys.setprofile(profile)
        yield
        sys.setprofile(None)
        self.report["touched"][item.nodeid] = sorted(entered)


if __name__ == "__main__":
    main()
