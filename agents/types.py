"""The nouns of a rollout. A `Trajectory` holds everything a later tool needs to live it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import Field

from contextrl.envs.types import Limit, Record, Reward

SCHEMA_VERSION = 1

Role = Literal["system", "user", "assistant"]


class Message(Record):
    role: Role
    content: str


class StopReason(StrEnum):
    """Why an episode ended; every episode has exactly one."""

    SUBMITTED = "submitted"
    MAX_TURNS = "max-turns"
    MAX_TOKENS = "max-tokens"
    """The budget of sampled tokens is spent."""
    CONTEXT = "context"
    """The next observation and one reply token would not fit the context."""
    WALL_CLOCK = "wall-clock"
    MAX_FORMAT_ERRORS = "max-format-errors"
    SANDBOX_ERROR = "sandbox-error"
    """Infrastructure. Excluded from the group, never scored 0."""
    POLICY_ERROR = "policy-error"
    """The inference server failed. Excluded from the group, never scored 0."""
    SETUP_ERROR = "setup-error"
    """No sandbox, or a first prompt longer than the context. Excluded, never scored 0."""
    UNFINISHED = "unfinished"
    """Still running, or its process was killed: as a journal shows it. No store holds one."""

    @property
    def excluded(self) -> bool:
        """Says nothing about the policy, so it teaches nothing."""
        return self in {
            self.SANDBOX_ERROR,
            self.POLICY_ERROR,
            self.SETUP_ERROR,
            self.UNFINISHED,
        }


class Generation(Record):
    """One reply of a policy. Token fields are empty for a chat endpoint that hides them."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Log-probability of each sampled token under the sampling distribution, natural log."""
    truncated: bool = False
    """True when the reply hit `max_new_tokens` before its end token."""


class TokenRecord(Record):
    """The episode as the server saw it. The three response fields have one length.

    `response_mask` is 1 on sampled tokens and 0 on template and observation tokens; nothing here
    was ever decoded and encoded again.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...] = ()
    response_mask: tuple[int, ...] = ()
    response_logprobs: tuple[float, ...] = ()
    """0.0 where the mask is 0."""


class Step(Record):
    """One assistant message and what came of it."""

    text: str
    command: str | None
    """None when no single command could be read from `text`."""
    observation: str
    """What came of it, formatted as the policy is shown it; empty for the submission.

    The last one may not have been shown, because a budget ended the episode: see `messages`.
    """
    exit_code: int | None = None
    timed_out: bool = False
    limit: Limit | None = None
    """What the command ran into, where the sandbox could tell."""
    policy_s: float = 0.0
    sandbox_s: float = 0.0
    token_span: tuple[int, int] | None = None
    """Half-open range of this reply inside `TokenRecord.response_ids`."""


class Timings(Record):
    """Wall-clock seconds of one episode by where they went. The rest of `total_s` is overhead."""

    total_s: float = 0.0
    start_s: float = 0.0
    policy_s: float = 0.0
    sandbox_s: float = 0.0
    grading_s: float = 0.0

    @property
    def overhead_s(self) -> float:
        return self.total_s - self.start_s - self.policy_s - self.sandbox_s - self.grading_s


class BranchPoint(Record):
    """Where an episode left another one, whose steps up to there it shares."""

    parent_id: str
    step: int
    """Number of the parent's steps that were repeated before the first step of its own."""
    repeated: bool = True
    """Every repeated step gave what the parent's record says."""


class Trajectory(Record):
    """One episode, whole."""

    schema_version: int = SCHEMA_VERSION
    trajectory_id: str
    """Unique within a run: `<task_id>/<phase>-<step>/<sample>`."""
    task_id: str
    phase: str = "rollout"
    """`rollout`, `mine`, `train`, `validate`, ..."""
    train_step: int = 0
    sample: int = 0
    policy: str
    started_at: str = ""
    """ISO 8601, UTC."""
    messages: tuple[Message, ...]
    steps: tuple[Step, ...] = ()
    tokens: TokenRecord | None = None
    stop_reason: StopReason
    stop_detail: str = ""
    format_errors: int = 0
    submission: str = ""
    """The agent's diff, as the sandbox gave it."""
    reward: Reward | None = None
    """None when the episode was not graded: excluded, or graded later."""
    grading_error: str = ""
    """Why grading was tried and gave no reward: infrastructure, so the episode is excluded."""
    timings: Timings = Timings()
    branch: BranchPoint | None = None
    """None for an episode that began at its task's start state."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The resolved limits, prompt set and sampling parameters of this episode."""

    @property
    def excluded(self) -> bool:
        """Infrastructure failed, in the episode or in its grading: it teaches nothing."""
        return self.stop_reason.excluded or bool(self.grading_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every budget of an episode. Crossing one ends it with that budget's `StopReason`."""

    max_turns: int = 35
    max_new_tokens: int = 4096
    """Per reply."""
    max_sampled_tokens: int = 1_000_000
    """Over the episode."""
    max_context_tokens: int = 32768
    """Prompt, replies and observations together; never exceeded, not by one token."""
    command_timeout_s: float = 60.0
    wall_clock_s: float = 3600.0
    max_format_errors: int = 3
    """In a row."""
    max_observation_chars: int = 10_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"limits.{name} must be positive, got {getattr(self, name)}")


class PolicySession(Protocol):
    """One conversation. Owns its tokens; the loop owns the meaning."""

    def room(self) -> int:
        """Tokens that still fit the context after all that was said; <= 0 when it is full.

        A chat endpoint that does not count returns a large number.
        """
        ...

    def act(self, *, max_new_tokens: int) -> Generation:
        """Sample the next assistant message. Raises `PolicyError` if the server failed."""
        ...

    def observe(self, content: str) -> bool:
        """Append a user message; False, changing nothing, if it and one token do not fit."""
        ...

    def tokens(self) -> TokenRecord | None:
        """What the server saw so far; None for a chat endpoint."""
        ...


class Policy(Protocol):
    name: str

    def open(self, messages: Sequence[Message], *, max_context_tokens: int) -> PolicySession:
        """Start a conversation. Raises `PromptTooLongError` if no reply token would fit."""
        ...
