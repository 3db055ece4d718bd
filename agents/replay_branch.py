"""What if it had looked here instead? Repeat a trajectory up to a step, then go on differently.

A branch is an episode like any other: the same loop plays it, the same grader judges it, and it is
stored as a trajectory that names its parent and the step it left.
"""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
from collections.abc import Callable, Sequence

from contextrl.agents.episode import EpisodeKey, EpisodeRecord, Stop, Witness
from contextrl.agents.errors import EpisodeCancelledError, PolicyError, ReplayError
from contextrl.agents.prompting import PromptSet
from contextrl.agents.replay import (
    StepReplay,
    StepResult,
    check_task,
    re_execute,
    settings_of,
)
from contextrl.agents.rollout import grade_episode, one_line, play
from contextrl.agents.types import (
    BranchPoint,
    Generation,
    Limits,
    Message,
    Policy,
    Step,
    StopReason,
    Trajectory,
)
from contextrl.envs.errors import SandboxError
from contextrl.envs.types import Grader, Sandbox, SandboxProvider, Task

PHASE = "branch"


def branch(
    parent: Trajectory,
    step: int,
    task: Task,
    provider: SandboxProvider,
    policy: Policy,
    *,
    grader: Grader | None = None,
    sample: int = 0,
    limits: Limits | None = None,
    on_repeat: Callable[[StepReplay], None] | None = None,
    on_sandbox: Callable[[Sandbox], None] | None = None,
    witness: Witness | None = None,
    cancel: threading.Event | None = None,
) -> Trajectory:
    """The parent's first `step` steps in a fresh sandbox, then `policy`. `limits` are for the rest.

    The policy reads what the parent read, so a token policy scores only what it samples itself: its
    `TokenRecord` has the shared part as prompt. Infrastructure failures are stop reasons, as in
    `rollout`. Raises `ReplayError` when the record cannot be repeated or `step` is not in it.
    """
    prompts, recorded_limits = settings_of(parent)
    check_task(parent, task)
    messages, shared = _shared(parent, step)
    limits = limits or recorded_limits
    record = EpisodeRecord(
        task=task,
        key=EpisodeKey(phase=PHASE, train_step=parent.train_step, sample=sample),
        policy=policy.name,
        config={**parent.config, "limits": dataclasses.asdict(limits), "prompts": prompts.name},
        prompt=messages[: len(messages) - 2 * step],
        steps=[each.model_copy(update={"token_span": None}) for each in shared],
        shown=step,
        witness=witness,
    )
    if witness is not None:
        witness.begin(record)
    repeated = True
    try:
        with provider.start(prompts.actions.equip(task)) as sandbox:
            for each in re_execute(sandbox, shared, prompts, recorded_limits, cancel=cancel):
                repeated &= each.result is not StepResult.DIVERGED
                if on_repeat is not None:
                    on_repeat(each)
            if on_sandbox is not None:
                on_sandbox(sandbox)
            record.session = policy.open(messages, max_context_tokens=limits.max_context_tokens)
            stop = play(
                sandbox,
                record.session,
                prompts,
                dataclasses.replace(limits, max_turns=limits.max_turns + step),
                record,
                cancel=cancel,
            )
            record.submission = sandbox.diff()
    except SandboxError as error:
        stop = Stop(StopReason.SANDBOX_ERROR, one_line(error))
    except PolicyError as error:
        stop = Stop(StopReason.POLICY_ERROR, one_line(error))
    if grader is not None and not stop.reason.excluded:
        grade_episode(grader, record, (), cancel)
    point = BranchPoint(parent_id=parent.trajectory_id, step=step, repeated=repeated)
    return record.freeze(stop).model_copy(update={"branch": point})


def _shared(parent: Trajectory, step: int) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
    """The conversation before the step, which ends with an observation, and its steps."""
    if not 0 <= step <= len(parent.steps):
        raise ReplayError(
            f"{parent.trajectory_id}: expected a step from 1 to {len(parent.steps) + 1}, "
            f"found {step + 1}"
        )
    seen = 0
    for index, message in enumerate(parent.messages):
        if message.role == "assistant":
            if seen == step:
                return parent.messages[:index], parent.steps[:step]
            seen += 1
    if seen != step or parent.messages[-1].role == "assistant":
        raise ReplayError(
            f"{parent.trajectory_id}: nothing was said after step {step}; branch off an earlier one"
        )
    return parent.messages, parent.steps[:step]


class Hand:
    """A person as a policy: each reply is the next command that was typed. Safe across threads."""

    name = "hand"

    def __init__(
        self,
        prompts: PromptSet,
        on_observation: Callable[[str], None],
        on_repeat: Callable[[StepReplay], None] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        self.on_repeat = on_repeat
        self.on_output = on_output
        self._prompts = prompts
        self._on_observation = on_observation
        self._typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def type(self, command: str) -> None:
        self._typed.put(command)

    def submit(self) -> None:
        self._typed.put(self._prompts.submit_command)

    def give_up(self) -> None:
        """The branch ends without a trajectory."""
        self._typed.put(None)

    def open(self, messages: Sequence[Message], *, max_context_tokens: int) -> Hand:
        return self

    def room(self) -> int:
        return sys.maxsize

    def act(self, *, max_new_tokens: int) -> Generation:
        command = self._typed.get()
        if command is None:
            raise EpisodeCancelledError("the branch was given up")
        return Generation(text=self._prompts.render_reply(command, thought="(typed by hand)"))

    def observe(self, content: str) -> bool:
        self._on_observation(content)
        return True

    def tokens(self) -> None:
        return None
