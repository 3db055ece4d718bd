"""True replay: the recorded commands in a fresh sandbox of the same task, diffed step by step.

A step reproduces if its exit code is the recorded one and what it printed, rendered as the policy
was shown it, equals the record by the rules of `replay_normal`. Nothing is asked of the policy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from contextrl.agents.errors import EpisodeCancelledError, ReplayError
from contextrl.agents.prompting import PromptSet, prompt_set
from contextrl.agents.replay_normal import Match, compare, first_difference
from contextrl.agents.types import Limits, Step, Trajectory
from contextrl.envs.errors import SandboxError
from contextrl.envs.types import ExecResult, Record, Sandbox, SandboxProvider, Task

logger = logging.getLogger(__name__)

LOOKS = 3
"""Repetitions that must agree with each other before a difference from the record counts."""

MAX_SHOWN_CHARS = 200
"""Of a differing line, in a report."""


class StepResult(StrEnum):
    REPRODUCED = "reproduced"
    DIVERGED = "diverged"
    UNSTABLE = "unstable"
    """Repetitions differ from each other as well: the command is no evidence either way."""
    NOT_RUN = "not-run"
    """There was nothing to run: see the cause."""


class Cause(StrEnum):
    """Why a step did not reproduce, or was not run."""

    NONE = ""
    EXIT_CODE = "exit-code"
    TIME_LIMIT = "time-limit"
    """Stopped by its time limit here and not in the record, or the other way round."""
    OUTPUT = "output"
    NO_COMMAND = "no-command"
    """The reply held no single command; the policy was shown a format error."""
    SUBMISSION = "submission"
    """Ends the episode and runs nothing."""
    NEVER_RUN = "never-run"
    """The record has no observation: a budget or the infrastructure ended the episode first."""


class StepReplay(Record):
    """One recorded step and what its command does today."""

    index: int
    command: str = ""
    """As recorded; empty where the reply held none."""
    result: StepResult
    cause: Cause = Cause.NONE
    match: Match | None = None
    """Which rule made the observations equal; None for a step that was not run."""
    observation: str = ""
    """Of today, rendered as the policy would be shown it."""
    exit_code: int | None = None
    seconds: float = 0.0
    recorded_line: str = ""
    """The first line that differs, normalised and shortened; so is the next field."""
    repeated_line: str = ""


class ReplayReport(Record):
    """A trajectory against its repetition."""

    trajectory_id: str
    task_id: str
    steps: tuple[StepReplay, ...] = ()
    complete: bool = False
    """All wanted steps were repeated."""
    submission_equal: bool | None = None
    """The diff it leaves equals the recorded one; None if it is unstable or the end not reached."""
    submission_unstable: bool = False
    """Two repetitions left different diffs."""
    error: str = ""
    """Why it could not run, or not to its end: infrastructure or a record without what it needs."""

    @property
    def divergences(self) -> tuple[StepReplay, ...]:
        return tuple(step for step in self.steps if step.result is StepResult.DIVERGED)

    @property
    def first_divergence(self) -> StepReplay | None:
        return next(iter(self.divergences), None)

    @property
    def n_run(self) -> int:
        return sum(step.result is not StepResult.NOT_RUN for step in self.steps)

    @property
    def diverged(self) -> bool:
        return bool(self.divergences) or self.submission_equal is False

    @property
    def reproduced(self) -> bool:
        return self.complete and not self.diverged and not self.error


def replay(
    trajectory: Trajectory,
    task: Task,
    provider: SandboxProvider,
    *,
    to_step: int | None = None,
    on_step: Callable[[StepReplay], None] | None = None,
    cancel: threading.Event | None = None,
    looks: int = LOOKS,
) -> ReplayReport:
    """Re-execute all steps, or those before `to_step`. A failure to run is the report's `error`.

    A trajectory that diverged is repeated until `looks` repetitions agree that it did. Steps in
    which two of them differ are `UNSTABLE`: `$RANDOM` does not blame the sandbox.

    Raises `EpisodeCancelledError` once `cancel` is set.
    """
    report, diff = _once(trajectory, task, provider, to_step, on_step, cancel)
    for _ in range(looks - 1):
        if not report.diverged or report.error:
            break
        again, other_diff = _once(trajectory, task, provider, to_step, None, cancel)
        steps = tuple(_settled(trajectory, report, again))
        report = report.model_copy(update={"steps": steps})
        if report.submission_equal is False and None is not other_diff != diff:
            report = report.model_copy(
                update={"submission_equal": None, "submission_unstable": True}
            )
    return report


def _once(
    trajectory: Trajectory,
    task: Task,
    provider: SandboxProvider,
    to_step: int | None,
    on_step: Callable[[StepReplay], None] | None,
    cancel: threading.Event | None,
) -> tuple[ReplayReport, str | None]:
    """One repetition, and the diff that it left behind if it came to the end."""
    steps: list[StepReplay] = []
    complete, diff, error = False, None, ""
    try:
        prompts, limits = settings_of(trajectory)
        check_task(trajectory, task)
        with provider.start(prompts.actions.equip(task)) as sandbox:
            recorded = trajectory.steps[:to_step]
            for step in re_execute(sandbox, recorded, prompts, limits, cancel=cancel):
                steps.append(step)
                if on_step is not None:
                    on_step(step)
            if len(recorded) == len(trajectory.steps) and not trajectory.excluded:
                diff = sandbox.diff()
            complete = True
    except (SandboxError, ReplayError) as failure:
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    report = ReplayReport(
        trajectory_id=trajectory.trajectory_id,
        task_id=trajectory.task_id,
        steps=tuple(steps),
        complete=complete,
        submission_equal=None if diff is None else diff == trajectory.submission,
        error=error,
    )
    return report, diff


def _settled(
    trajectory: Trajectory, report: ReplayReport, again: ReplayReport
) -> Iterator[StepReplay]:
    """The steps of `report`, those in which `again` saw something else marked as unstable."""
    for index, first in enumerate(report.steps):
        second = again.steps[index] if index < len(again.steps) else None
        if first.result is StepResult.DIVERGED and second is not None:
            command = trajectory.steps[index].command or ""
            same = compare(first.observation, second.observation, command=command)
            if same is Match.NONE or first.exit_code != second.exit_code:
                first = first.model_copy(update={"result": StepResult.UNSTABLE})
        yield first


def re_execute(
    sandbox: Sandbox,
    steps: Sequence[Step],
    prompts: PromptSet,
    limits: Limits,
    *,
    cancel: threading.Event | None = None,
) -> Iterator[StepReplay]:
    """Each step's comparison as soon as its command has ended. Raises `SandboxError`."""
    for index, step in enumerate(steps):
        if cancel is not None and cancel.is_set():
            raise EpisodeCancelledError("the replay was stopped")
        cause = _not_run(step, prompts)
        if cause is not Cause.NONE:
            command = step.command or ""
            yield StepReplay(index=index, command=command, result=StepResult.NOT_RUN, cause=cause)
            continue
        assert step.command is not None
        began = time.perf_counter()
        result = sandbox.exec(step.command, timeout_s=limits.command_timeout_s)
        seconds = time.perf_counter() - began
        observation = prompts.render_observation(result, max_chars=limits.max_observation_chars)
        yield _compare(index, step, result, observation, seconds)


def settings_of(trajectory: Trajectory) -> tuple[PromptSet, Limits]:
    """How the episode rendered observations and what bounded it. Raises `ReplayError`."""
    name = trajectory.config.get("prompts")
    if not isinstance(name, str):
        raise ReplayError(
            f"{trajectory.trajectory_id}: expected a run of this project, found a record without a "
            "prompt set: its observations cannot be rendered again"
        )
    try:
        limits = TypeAdapter(Limits).validate_python(trajectory.config.get("limits", {}))
    except (ValidationError, ValueError) as error:
        raise ReplayError(
            f"{trajectory.trajectory_id}: expected the limits of an episode: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return prompt_set(name), limits


def check_task(trajectory: Trajectory, task: Task) -> None:
    if task.task_id != trajectory.task_id:
        raise ReplayError(
            f"{trajectory.trajectory_id}: expected task {trajectory.task_id}, found {task.task_id}"
        )


def _not_run(step: Step, prompts: PromptSet) -> Cause:
    if step.command is None:
        return Cause.NO_COMMAND
    if prompts.is_submission(step.command):
        return Cause.SUBMISSION
    # Every command that ran has an observation, if only "(no output)".
    return Cause.NEVER_RUN if not step.observation else Cause.NONE


def _compare(
    index: int, step: Step, result: ExecResult, observation: str, seconds: float
) -> StepReplay:
    assert step.command is not None
    match = compare(step.observation, observation, command=step.command)
    if result.timed_out != step.timed_out:
        cause = Cause.TIME_LIMIT
    elif result.exit_code != step.exit_code:
        cause = Cause.EXIT_CODE
    else:
        cause = Cause.OUTPUT if match is Match.NONE else Cause.NONE
    recorded, repeated = "", ""
    if cause is not Cause.NONE:
        recorded, repeated = first_difference(step.observation, observation)
    return StepReplay(
        index=index,
        command=step.command,
        result=StepResult.REPRODUCED if cause is Cause.NONE else StepResult.DIVERGED,
        cause=cause,
        match=match,
        observation=observation,
        exit_code=result.exit_code,
        seconds=seconds,
        recorded_line=recorded[:MAX_SHOWN_CHARS],
        repeated_line=repeated[:MAX_SHOWN_CHARS],
    )
