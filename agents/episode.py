"""What one episode leaves behind, collected while it runs and frozen at its end."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from contextrl.agents.types import (
    Generation,
    Message,
    PolicySession,
    Step,
    StopReason,
    Timings,
    TokenRecord,
    Trajectory,
)
from contextrl.envs.types import ExecResult, Reward, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeKey:
    """Which of a task's episodes this is."""

    phase: str = "rollout"
    train_step: int = 0
    sample: int = 0

    def trajectory_id(self, task_id: str) -> str:
        return f"{task_id}/{self.phase}-{self.train_step}/{self.sample}"


class Stop(NamedTuple):
    """Why an episode ended."""

    reason: StopReason
    detail: str = ""


Place = Literal["start", "policy", "sandbox", "grading"]


class Witness(Protocol):
    """Sees an episode while it runs; called from its thread, which waits meanwhile."""

    def begin(self, record: EpisodeRecord) -> None:
        """What the policy reads first is known."""
        ...

    def step(self, index: int, step: Step, *, done: bool) -> None:
        """A reply whose command is about to run, or with `done` a step that is over."""
        ...


@dataclass(slots=True)
class EpisodeRecord:
    """Mutable while the episode runs; `freeze` makes the `Trajectory`."""

    task: Task
    key: EpisodeKey
    policy: str
    config: Mapping[str, Any]
    prompt: Sequence[Message]
    witness: Witness | None = None
    session: PolicySession | None = None
    submission: str = ""
    reward: Reward | None = None
    grading_error: str = ""
    sampled_tokens: int = 0
    format_errors: int = 0
    format_errors_in_a_row: int = 0
    steps: list[Step] = field(default_factory=list)
    shown: int = 0
    """How many observations the policy has been shown."""
    _seconds: defaultdict[Place, float] = field(default_factory=lambda: defaultdict(float))
    _step_seconds: defaultdict[Place, float] = field(default_factory=lambda: defaultdict(float))
    """Since the last step."""
    _began: float = field(default_factory=time.perf_counter)
    _started_at: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    @contextlib.contextmanager
    def timing(self, place: Place) -> Iterator[None]:
        """The block's seconds count for `place` and the step to come, even if it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self._seconds[place] += seconds
            self._step_seconds[place] += seconds

    def announce(self, reply: Generation, command: str) -> None:
        """The witness learns of a command before it runs."""
        if self.witness is not None:
            step = Step(text=reply.text, command=command, observation="")
            self.witness.step(len(self.steps), step, done=False)

    def add_step(
        self,
        reply: Generation,
        command: str | None,
        observation: str = "",
        result: ExecResult | None = None,
    ) -> None:
        """A `command` of None is a format error."""
        self.format_errors += command is None
        self.format_errors_in_a_row = self.format_errors_in_a_row + 1 if command is None else 0
        self.steps.append(
            Step(
                text=reply.text,
                command=command,
                observation=observation,
                exit_code=result.exit_code if result else None,
                timed_out=result.timed_out if result else False,
                limit=result.limit if result else None,
                policy_s=self._step_seconds["policy"],
                sandbox_s=self._step_seconds["sandbox"],
            )
        )
        self._step_seconds.clear()
        if self.witness is not None:
            self.witness.step(len(self.steps) - 1, self.steps[-1], done=True)

    def freeze(self, stop: Stop) -> Trajectory:
        tokens = self.session.tokens() if self.session else None
        return Trajectory(
            trajectory_id=self.key.trajectory_id(self.task.task_id),
            task_id=self.task.task_id,
            phase=self.key.phase,
            train_step=self.key.train_step,
            sample=self.key.sample,
            policy=self.policy,
            started_at=self._started_at,
            messages=tuple(self._messages()),
            steps=tuple(_with_spans(self.steps, tokens)),
            tokens=tokens,
            stop_reason=stop.reason,
            stop_detail=stop.detail,
            format_errors=self.format_errors,
            submission=self.submission,
            reward=self.reward,
            grading_error=self.grading_error,
            timings=Timings(
                total_s=time.perf_counter() - self._began,
                start_s=self._seconds["start"],
                policy_s=self._seconds["policy"],
                sandbox_s=self._seconds["sandbox"],
                grading_s=self._seconds["grading"],
            ),
            config=dict(self.config),
        )

    def _messages(self) -> Iterator[Message]:
        """What was said, as it was shown: an observation that a budget withheld is not in it."""
        yield from self.prompt
        for index, step in enumerate(self.steps):
            yield Message(role="assistant", content=step.text)
            if index < self.shown:
                yield Message(role="user", content=step.observation)


def _with_spans(steps: Sequence[Step], tokens: TokenRecord | None) -> Iterator[Step]:
    if tokens is None:
        yield from steps
        return
    spans = list(reply_spans(tokens.response_mask))
    # A branch begins with steps of its parent, whose tokens are in its prompt.
    inherited = max(0, len(steps) - len(spans))
    yield from steps[:inherited]
    steps = steps[inherited:]
    for step, span in itertools.zip_longest(steps, spans):
        assert step is not None, "tokens were sampled that no step holds"
        yield step.model_copy(update={"token_span": span})


def reply_spans(mask: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Half-open runs of 1: every two replies have template tokens between them."""
    position = 0
    for value, run in itertools.groupby(mask):
        length = len(list(run))
        if value:
            yield position, position + length
        position += length
