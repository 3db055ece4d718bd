"""What a row of somebody else's trajectory set is read into."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from contextrl.agents.types import Trajectory
from contextrl.envs.types import Record

Row = dict[str, Any]


class Format(StrEnum):
    """Where a row's shape comes from."""

    MINI_SWE_AGENT = "mini-swe-agent"
    """`.traj.json` files and rows made of them: `messages`, `info`, `trajectory_format`."""
    MINI_PLUS = "mini-swe-agent-plus"
    """The paper's 66k set: `instance_id`, `messages`, `id`; neither patch nor outcome."""
    SWE_AGENT = "swe-agent"
    """SWE-agent 1.x `.traj`: `trajectory`, `history`, `info`."""
    NEBIUS = "nebius-swe-agent"
    """nebius/SWE-agent-trajectories: `trajectory` of `role` and `text`, `target`."""
    SWE_SMITH = "swe-smith"
    """SWE-bench/SWE-smith-trajectories: `messages`, `traj_id`, `resolved`, `patch`."""
    OPENHANDS = "openhands"
    """SWE-Gym/OpenHands-Sampled-Trajectories: `messages` with tool calls, `test_result`."""
    OWN = "contextrl"
    """A line of one of our run folders."""


class ForeignRun(Record):
    """One row, read: the episode, and what the row says of its task."""

    format: Format
    trajectory: Trajectory
    repo: str = ""
    """`owner/name`; empty when neither the row nor the instance id says."""
    base_commit: str = ""
    """Empty when the row does not say: join the instance."""
    problem: str = ""
    """The issue, cut out of the task prompt."""
