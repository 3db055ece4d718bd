"""What the terminal application needs from outside: sandboxes, policies, a place for branches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from contextrl.agents.episode import Witness
from contextrl.agents.replay import ReplayReport, StepReplay
from contextrl.agents.replay_branch import Hand
from contextrl.agents.types import Trajectory


class Workbench(Protocol):
    """Its calls block; the application makes them from a thread."""

    def why_not(self, trajectory: Trajectory) -> str:
        """Why it cannot be re-executed or branched; empty if it can."""
        ...

    def why_no_policy(self) -> str:
        """Why no policy can go on; empty if one can."""
        ...

    def replay(
        self,
        trajectory: Trajectory,
        on_step: Callable[[StepReplay], None],
        cancel: threading.Event,
    ) -> ReplayReport: ...

    def branch(
        self,
        trajectory: Trajectory,
        step: int,
        hand: Hand | None,
        cancel: threading.Event,
        witness: Witness,
    ) -> Trajectory:
        """The finished, graded and stored branch; by the policy if no hand is given.

        The witness sees the steps that come after the repeated ones.

        Raises `ReplayError` or another named error if it cannot be made.
        """
        ...
