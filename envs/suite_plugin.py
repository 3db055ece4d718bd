"""Runs inside the sandbox: a pytest plugin that writes what became of each test to a file.

Standard library and pytest only, syntax of Python 3.7: it is sent as text and imported by the
Python of the task's image. `suite` reads the file. What it says is a finding, not a proof: whoever
must rely on it grades the task (`grading`).
"""

from __future__ import annotations

import json
import os
from typing import Any

OUTCOMES: dict[str, str] = {}
CRASHES: dict[str, str] = {}
MAX_CRASH_CHARS = 400


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call":
        OUTCOMES.setdefault(report.nodeid, report.outcome)
    elif report.outcome != "passed":
        OUTCOMES[report.nodeid] = "skipped" if report.outcome == "skipped" else "error"
    crash = getattr(report.longrepr, "reprcrash", None)
    if report.outcome == "failed" and crash is not None and report.nodeid not in CRASHES:
        lines = str(crash.message).splitlines() or [""]
        CRASHES[report.nodeid] = lines[0][:MAX_CRASH_CHARS]


def pytest_sessionfinish(session: Any) -> None:
    with open(os.environ["CONTEXTRL_SUITE"], "w") as stream:
        json.dump({"outcomes": OUTCOMES, "crashes": CRASHES}, stream)
