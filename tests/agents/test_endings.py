"""Every episode is counted under one kind, and what failed around it is named."""

import pytest

from contextrl.agents.endings import Ending, ending_of
from contextrl.agents.prompting import COMPACT
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.summary import summarise
from contextrl.agents.types import Limits
from contextrl.envs.errors import ImageError, SandboxError, TaskSetupError
from contextrl.envs.types import ExecResult, Limit, Reward, Verdict

SUBMIT = "```bash\nsubmit\n```"
LOOK = "```bash\nls\n```"


class Grader:
    def __init__(self, *rewards: Reward | Exception) -> None:
        self._rewards = list(rewards)

    def grade(self, task, diff):
        reward = self._rewards.pop(0)
        if isinstance(reward, Exception):
            raise reward
        return reward


def reward(verdict: Verdict, limit: Limit | None = None) -> Reward:
    return Reward(verdict=verdict, limit=limit)


def out_of_memory(command: str) -> ExecResult:
    return ExecResult(output="Killed", exit_code=137, seconds=0.1, limit=Limit.MEMORY)


@pytest.mark.parametrize(
    ("start_errors", "replies", "graded", "ending"),
    [
        ([], [SUBMIT], reward(Verdict.RESOLVED), Ending.RESOLVED),
        ([], [SUBMIT], reward(Verdict.UNRESOLVED), Ending.UNRESOLVED),
        ([], [SUBMIT], reward(Verdict.NO_REPORT), Ending.UNRESOLVED),
        ([], [SUBMIT], reward(Verdict.TIMEOUT), Ending.TIME),
        ([], [SUBMIT], reward(Verdict.NO_REPORT, Limit.MEMORY), Ending.MEMORY),
        ([], [LOOK], reward(Verdict.UNRESOLVED), Ending.MEMORY),
        ([], [SUBMIT], SandboxError("engine gone"), Ending.INFRASTRUCTURE),
        ([], [], reward(Verdict.RESOLVED), Ending.POLICY),
        ([ImageError("none")], [SUBMIT], reward(Verdict.RESOLVED), Ending.IMAGE),
        ([TaskSetupError("no git")], [SUBMIT], reward(Verdict.RESOLVED), Ending.TASK),
        ([SandboxError("x")], [SUBMIT], reward(Verdict.RESOLVED), Ending.INFRASTRUCTURE),
    ],
)
def test_each_way_to_end_has_a_name(task, make_provider, start_errors, replies, graded, ending):
    trajectory = rollout(
        task,
        make_provider(out_of_memory, start_errors=start_errors),
        ScriptedPolicy(replies),
        COMPACT,
        Limits(max_turns=1),
        grader=Grader(graded),
        retry_delays_s=(),
    )
    assert ending_of(trajectory) is ending
    summary = summarise([trajectory])
    assert summary.endings == {ending: 1}
    assert summary.excluded == (ending in {"infrastructure", "policy", "image", "task"})


def test_one_diff_with_two_verdicts_is_flaky(task, make_provider):
    verdicts = [Verdict.RESOLVED, Verdict.UNRESOLVED, Verdict.RESOLVED, Verdict.TIMEOUT]
    diffs = ["same", "same", "other", "same"]
    played = [
        rollout(
            task,
            make_provider(diff=diff),
            ScriptedPolicy([SUBMIT]),
            COMPACT,
            Limits(),
            grader=Grader(reward(verdict)),
        )
        for diff, verdict in zip(diffs, verdicts, strict=True)
    ]
    assert summarise(played).endings == {"flaky": 2, "resolved": 1, "time": 1}
