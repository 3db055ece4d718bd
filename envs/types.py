"""The nouns of this package: what a task is, what a command returned, what an episode earned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Frozen and strict about its keys: a typo in a file is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSource(StrEnum):
    SWE_GYM = "swe-gym"
    SWE_BENCH = "swe-bench"
    SWE_SMITH = "swe-smith"
    MUTATION = "mutation"


class Task(Record):
    """One issue in one repository at one commit, with the tests that decide it."""

    task_id: str
    source: TaskSource
    repo: str
    base_commit: str
    problem: str
    """The issue text, as the agent reads it."""
    image: str
    """Name of a local or registry image that holds the repository at `base_commit`."""
    workdir: str = "/testbed"
    shell_setup: str = ""
    """Sourced by every shell of the sandbox, e.g. to activate the image's conda environment."""
    setup_patch: str = ""
    """Applied before the agent starts. SWE-smith and mutation tasks inject their bug this way."""
    gold_patch: str
    """The reference fix, against the agent's start state."""
    test_patch: str = ""
    """Applied when grading, never seen by the agent."""
    fail_to_pass: tuple[str, ...] = Field(min_length=1)
    pass_to_pass: tuple[str, ...] = ()
    test_timeout_s: float = 1800.0


class Limit(StrEnum):
    """What a sandbox ran into. The sandbox lives on: that is the command's outcome, no failure."""

    TIME = "time"
    MEMORY = "memory"
    PROCESSES = "processes"
    DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    output: str
    """stdout and stderr as the terminal would interleave them; undecodable bytes replaced."""
    exit_code: int | None
    """None when the command did not end by itself: its time limit, or its shell died."""
    seconds: float
    timed_out: bool = False
    dropped_bytes: int = 0
    """Bytes cut out of the middle of `output`; the cut is also stated inside `output`."""
    limit: Limit | None = None
    """The limit that the command, or one of its processes, ran into, where the backend can tell."""


class Outcome(StrEnum):
    """Of one test."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    MISSING = "missing"
    """The test was asked for and the report does not mention it."""


class Verdict(StrEnum):
    """Of one episode. Infrastructure failures are exceptions, not verdicts."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    PATCH_REJECTED = "patch-rejected"
    """The agent's diff does not apply to the pristine repository."""
    TIMEOUT = "timeout"
    """The tests ran past the task's limit."""
    NO_REPORT = "no-report"
    """The test process ended before its tests did: it crashed, or something made it exit."""
    TAMPERED = "tampered"
    """Something other than the tests had a hand in their results."""


class Reward(Record):
    """What an episode earned. Resolved only if every listed test passed."""

    verdict: Verdict
    tests: dict[str, Outcome] = Field(default_factory=dict)
    seconds: float = 0.0
    """Wall-clock of grading, container start included."""
    test_seconds: float = 0.0
    """The tests' own time, so that our overhead is the difference."""
    limit: Limit | None = None
    """What the tests ran into, where the sandbox could tell."""
    detail: str = ""

    @property
    def resolved(self) -> bool:
        return self.verdict is Verdict.RESOLVED

    @property
    def score(self) -> float:
        """1.0 if resolved, else 0.0, as in the release (FACTS: reward = resolved 0/1)."""
        return float(self.resolved)


class Sandbox(Protocol):
    """A started, isolated copy of a task. Use as a context manager; closing twice is harmless.

    All methods raise `SandboxError` when the infrastructure failed, and only then.
    """

    sandbox_id: str

    def exec(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        """Run in the persistent shell: the working directory and environment survive.

        With `stdin`, which the shell's own memory never holds, it runs in a subshell of that.
        """
        ...

    def read_file(self, path: str) -> bytes: ...

    def write_file(self, path: str, content: bytes) -> None: ...

    def diff(self) -> str:
        """What the agent changed under the task's workdir since start, as `git diff --binary`."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class StreamingSandbox(Protocol):
    """A sandbox that can also tell what a command prints before it has ended."""

    on_output: Callable[[bytes], None] | None


class SandboxProvider(Protocol):
    """Where sandboxes come from. One per run; safe to call from many threads."""

    def start(self, task: Task) -> Sandbox:
        """A sandbox in the task's start state. Raises `ImageError`, `TaskSetupError`, ..."""
        ...

    def close(self) -> None:
        """Nothing this provider started is left."""
        ...


class Grader(Protocol):
    """Turns a diff into a `Reward` in a place the episode never touched."""

    def grade(self, task: Task, diff: str) -> Reward:
        """Raises `SandboxError` on infrastructure failure, which is never a reward."""
        ...
