"""The workbench of the terminal application: Docker, tasks, a policy, a folder of branches."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

from contextrl.agents.episode import Witness
from contextrl.agents.errors import ReplayError
from contextrl.agents.replay import ReplayReport, StepReplay, replay, settings_of
from contextrl.agents.replay_branch import PHASE, Hand, branch
from contextrl.agents.store import RunStore
from contextrl.agents.types import Trajectory
from contextrl.envs.types import Sandbox, StreamingSandbox
from contextrl.scripts.policy_spec import PolicyOf
from contextrl.scripts.replay_tasks import Sandboxes, TaskBook

HAND_WALL_CLOCK_S = 24 * 3600.0
"""A person thinks longer than a policy."""


class DockerWorkbench:
    """`branches` is a run folder; a branch is stored there before it is returned."""

    def __init__(
        self,
        tasks: TaskBook,
        sandboxes: Sandboxes,
        branches: Path,
        *,
        policy_of: PolicyOf | None = None,
        grade: bool = True,
    ) -> None:
        self._tasks = tasks
        self._sandboxes = sandboxes
        self._branches = branches
        self._policy_of = policy_of
        self._grade = grade
        self._lock = threading.Lock()

    def why_not(self, trajectory: Trajectory) -> str:
        if trajectory.task_id not in self._tasks:
            return f"task {trajectory.task_id} is in no task file; start with --tasks FILE"
        try:
            settings_of(trajectory)
        except ReplayError as error:
            return str(error)
        return ""

    def why_no_policy(self) -> str:
        return (
            "" if self._policy_of else "no policy; start with --policy local:PATH or endpoint:URL"
        )

    def replay(
        self,
        trajectory: Trajectory,
        on_step: Callable[[StepReplay], None],
        cancel: threading.Event,
    ) -> ReplayReport:
        task = self._sandboxes.ready(self._tasks.of(trajectory))
        provider = self._sandboxes.provider()
        return replay(trajectory, task, provider, on_step=on_step, cancel=cancel)

    def branch(
        self,
        trajectory: Trajectory,
        step: int,
        hand: Hand | None,
        cancel: threading.Event,
        witness: Witness,
    ) -> Trajectory:
        task = self._sandboxes.ready(self._tasks.of(trajectory))
        _, limits = settings_of(trajectory)
        if hand is not None:
            limits = dataclasses.replace(limits, wall_clock_s=HAND_WALL_CLOCK_S, max_turns=1000)
        policy = hand or (self._policy_of(task) if self._policy_of else None)
        if policy is None:
            raise ReplayError(self.why_no_policy())

        def on_sandbox(sandbox: Sandbox) -> None:
            if hand is not None and isinstance(sandbox, StreamingSandbox):
                sandbox.on_output = hand.on_output

        made = branch(
            trajectory,
            step,
            task,
            self._sandboxes.provider(),
            policy,
            grader=self._sandboxes.grader() if self._grade else None,
            limits=limits,
            on_repeat=hand.on_repeat if hand is not None else None,
            on_sandbox=on_sandbox,
            witness=witness,
            cancel=cancel,
        )
        return self._store(made)

    def _store(self, made: Trajectory) -> Trajectory:
        """Under the first sample number that is free."""
        config = {"branches": True}
        with self._lock, RunStore.open(self._branches, config, resume=True) as store:
            sample = 0
            stem = f"{made.task_id}/{PHASE}-{made.train_step}"
            while f"{stem}/{sample}" in store:
                sample += 1
            named = {"sample": sample, "trajectory_id": f"{stem}/{sample}"}
            made = made.model_copy(update=named)
            store.append(made)
        return made
