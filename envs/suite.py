"""One run of a repository's own tests in a sandbox: the outcome of each, and how it failed."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError

from contextrl.envs.errors import TaskSetupError
from contextrl.envs.types import Outcome, Record, Sandbox

PLUGIN = "contextrl_suite"
STEP_TIMEOUT_S = 60.0


class SuiteRun(Record):
    """What the tests did. `ended` is false when they ran out of time or died without a word."""

    ended: bool
    outcomes: dict[str, Outcome] = Field(default_factory=dict)
    crashes: dict[str, str] = Field(default_factory=dict)
    """First line of the error message of each test that failed."""
    seconds: float = 0.0

    def outcome(self, test: str) -> Outcome:
        return self.outcomes.get(test, Outcome.MISSING)


class _Report(Record):
    outcomes: dict[str, Outcome]
    crashes: dict[str, str]


def run_suite(
    sandbox: Sandbox, workdir: str, tests: Sequence[str], *, hash_seed: int, timeout_s: float
) -> SuiteRun:
    """`tests` are files or folders below `workdir`. The order of sets depends on `hash_seed`."""
    scratch = f"/tmp/{secrets.token_hex(8)}"
    made = sandbox.exec(f"mkdir -m 700 {scratch}", timeout_s=STEP_TIMEOUT_S)
    if made.exit_code != 0:
        raise TaskSetupError(f"could not make {scratch}: {' '.join(made.output.split())[:200]}")
    sandbox.write_file(f"{scratch}/{PLUGIN}.py", _plugin())
    report = f"{scratch}/report.json"
    settings = f"PYTHONHASHSEED={hash_seed} PYTHONPATH={scratch} CONTEXTRL_SUITE={report}"
    result = sandbox.exec(
        f"(cd -- {shlex.quote(workdir)} && {settings} "
        "$(command -v python || command -v python3) -m pytest -q --tb=short "
        f"-p no:cacheprovider -p {PLUGIN} {shlex.join(tests)} >/dev/null 2>&1)",
        timeout_s=timeout_s,
    )
    try:
        content = b"" if result.timed_out else sandbox.read_file(report)
        found = _Report.model_validate(json.loads(content))
    except (FileNotFoundError, ValueError, ValidationError):
        return SuiteRun(ended=False, seconds=result.seconds)
    return SuiteRun(
        ended=True, outcomes=found.outcomes, crashes=found.crashes, seconds=result.seconds
    )


@cache
def _plugin() -> bytes:
    return Path(__file__).with_name("suite_plugin.py").read_bytes()
