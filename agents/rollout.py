"""THE loop: a policy and a sandbox take turns until the agent submits or a budget is spent."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from contextrl.agents.episode import EpisodeKey, EpisodeRecord, Stop, Witness
from contextrl.agents.errors import (
    ContextFullError,
    EpisodeCancelledError,
    FormatError,
    PolicyError,
    PromptTooLongError,
)
from contextrl.agents.prompting import PromptSet
from contextrl.agents.types import Limits, Policy, PolicySession, StopReason, Trajectory
from contextrl.envs.errors import EngineUnavailableError, ImageError, SandboxError, TaskSetupError
from contextrl.envs.types import Grader, Sandbox, SandboxProvider, Task

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_DELAYS_S = (1.0, 2.0, 4.0)


def play(
    sandbox: Sandbox,
    session: PolicySession,
    prompts: PromptSet,
    limits: Limits,
    record: EpisodeRecord,
    *,
    cancel: threading.Event | None = None,
) -> Stop:
    """Take turns until the agent submits or a budget is spent; every reply is a step of `record`.

    The wall clock bounds commands and is read before each reply. Raises `SandboxError` and
    `PolicyError` when one of the two partners fails.
    """
    deadline = time.monotonic() + limits.wall_clock_s
    while True:
        if cancel is not None and cancel.is_set():
            raise EpisodeCancelledError(record.task.task_id)
        if time.monotonic() >= deadline:
            return Stop(StopReason.WALL_CLOCK)
        tokens_left = limits.max_sampled_tokens - record.sampled_tokens
        if tokens_left < 1:
            return Stop(StopReason.MAX_TOKENS)
        if session.room() < 1:
            return Stop(StopReason.CONTEXT, "no room for a reply")
        try:
            with record.timing("policy"):
                reply = session.act(max_new_tokens=min(limits.max_new_tokens, tokens_left))
        except ContextFullError as error:
            return Stop(StopReason.CONTEXT, str(error))
        record.sampled_tokens += len(reply.token_ids)

        try:
            command = prompts.actions.read(reply.text, truncated=reply.truncated)
        except FormatError as error:
            observation = str(error)
            record.add_step(reply, None, observation)
        else:
            time_left_s = deadline - time.monotonic()
            if prompts.is_submission(command):
                record.add_step(reply, command)
                return Stop(StopReason.SUBMITTED)
            if time_left_s <= 0:
                record.add_step(reply, command)
                return Stop(StopReason.WALL_CLOCK, "the last command was not run")
            timeout_s = min(limits.command_timeout_s, time_left_s)
            record.announce(reply, command)
            try:
                with record.timing("sandbox"):
                    result = sandbox.exec(command, timeout_s=timeout_s)
            except SandboxError:
                record.add_step(reply, command)
                raise
            observation = prompts.render_observation(result, max_chars=limits.max_observation_chars)
            record.add_step(reply, command, observation, result)

        if record.format_errors_in_a_row >= limits.max_format_errors:
            return Stop(StopReason.MAX_FORMAT_ERRORS)
        if len(record.steps) >= limits.max_turns:
            return Stop(StopReason.MAX_TURNS)
        if not session.observe(observation):
            return Stop(StopReason.CONTEXT, "no room for the observation and one reply token")
        record.shown += 1


def rollout(
    task: Task,
    provider: SandboxProvider,
    policy: Policy,
    prompts: PromptSet,
    limits: Limits,
    *,
    grader: Grader | None = None,
    grade_unsubmitted: bool = True,
    key: EpisodeKey | None = None,
    config: Mapping[str, Any] | None = None,
    retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    cancel: threading.Event | None = None,
    witness: Witness | None = None,
) -> Trajectory:
    """One episode, from a fresh sandbox to its reward; what fails on the way is its stop reason.

    `grade_unsubmitted`: an episode that ran out of a budget is graded on the diff it left, as in
    the release; otherwise only a submission is graded. `config` is stored beside the limits.
    Raises `EpisodeCancelledError` once `cancel` is set; programming errors propagate.
    """
    messages = prompts.render_task(task)
    record = EpisodeRecord(
        task=task,
        key=key or EpisodeKey(),
        policy=policy.name,
        config={"limits": dataclasses.asdict(limits), "prompts": prompts.name, **(config or {})},
        prompt=messages,
        witness=witness,
    )
    if witness is not None:
        witness.begin(record)
    try:
        session = policy.open(messages, max_context_tokens=limits.max_context_tokens)
        record.session = session
        with record.timing("start"):
            sandbox = retry_infrastructure(
                lambda: provider.start(prompts.actions.equip(task)),
                what=f"start {task.task_id}",
                delays_s=retry_delays_s,
                cancel=cancel,
            )
    except (SandboxError, PromptTooLongError) as error:
        return record.freeze(Stop(StopReason.SETUP_ERROR, one_line(error)))
    except PolicyError as error:
        return record.freeze(Stop(StopReason.POLICY_ERROR, one_line(error)))

    with _closing(sandbox, record):
        try:
            stop = play(sandbox, session, prompts, limits, record, cancel=cancel)
            with record.timing("sandbox"):
                record.submission = sandbox.diff()
        except SandboxError as error:
            stop = Stop(StopReason.SANDBOX_ERROR, one_line(error))
        except PolicyError as error:
            stop = Stop(StopReason.POLICY_ERROR, one_line(error))

    gradable = stop.reason is StopReason.SUBMITTED or grade_unsubmitted
    if grader is not None and gradable and not stop.reason.excluded:
        grade_episode(grader, record, retry_delays_s, cancel)
    return record.freeze(stop)


def grade_episode(
    grader: Grader,
    record: EpisodeRecord,
    retry_delays_s: Sequence[float],
    cancel: threading.Event | None,
) -> None:
    """Set the record's reward, or its grading error."""
    try:
        with record.timing("grading"):
            record.reward = retry_infrastructure(
                lambda: grader.grade(record.task, record.submission),
                what=f"grade {record.task.task_id}",
                delays_s=retry_delays_s,
                cancel=cancel,
            )
    except SandboxError as error:
        record.grading_error = one_line(error)


def retry_infrastructure(
    attempt: Callable[[], T],
    *,
    what: str,
    delays_s: Sequence[float] = RETRY_DELAYS_S,
    cancel: threading.Event | None = None,
) -> T:
    """The result of `attempt`, tried again after each delay while it raises `SandboxError`.

    What another try cannot mend is raised at once: no engine, no image, or a task whose start
    state cannot be made. Raises `EpisodeCancelledError` instead of waiting once `cancel` is set.
    """
    wait = threading.Event().wait if cancel is None else cancel.wait
    for number, delay_s in enumerate(delays_s, start=1):
        try:
            return attempt()
        except (EngineUnavailableError, ImageError, TaskSetupError):
            raise
        except SandboxError as error:
            logger.warning(
                "%s failed, try %d of %d, next in %.0f s: %s",
                what,
                number,
                len(delays_s) + 1,
                delay_s,
                one_line(error),
            )
            if wait(delay_s):
                raise EpisodeCancelledError(what) from error
    return attempt()


@contextlib.contextmanager
def _closing(sandbox: Sandbox, record: EpisodeRecord) -> Iterator[None]:
    """Closed afterwards, and its time counted. A failure to close does not cost the episode."""
    try:
        yield
    finally:
        try:
            with record.timing("sandbox"):
                sandbox.close()
        except SandboxError as error:
            logger.warning("close %s: %s", sandbox.sandbox_id, one_line(error))


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
