"""A branch repeats its parent to a step and goes on differently, and is graded like any episode."""

from __future__ import annotations

import pytest

from contextrl.agents.errors import ReplayError
from contextrl.agents.prompting import COMPACT
from contextrl.agents.replay_branch import branch
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy, ScriptedTokenServer
from contextrl.agents.tokens import TokenPolicy
from contextrl.agents.types import Limits, StopReason, Trajectory
from contextrl.envs.errors import SandboxError
from contextrl.envs.fake import FakeProvider
from contextrl.envs.grading import DockerGrader

WRONG = "sed -i 's/a - b/a * b/' tiny.py"
RIGHT = "sed -i 's/a - b/a + b/' tiny.py"


def replies(*commands: str) -> list[str]:
    return [COMPACT.render_reply(command, thought="") for command in commands]


@pytest.fixture
def provider(tiny_files):
    provider = FakeProvider(tiny_files)
    yield provider
    provider.close()


@pytest.fixture
def parent(tiny_task, provider) -> Trajectory:
    policy = ScriptedPolicy(replies("cat tiny.py", WRONG, "cd tests", "submit"))
    return rollout(tiny_task, provider, policy, COMPACT, Limits(command_timeout_s=20.0))


def test_it_goes_on_from_the_step_in_the_state_that_the_parent_had(tiny_task, provider, parent):
    policy = ScriptedPolicy(replies(RIGHT, "pwd; cat tiny.py", "submit"), name="other")
    made = branch(parent, 1, tiny_task, provider, policy, sample=4)
    assert made.trajectory_id == "tiny-1/branch-0/4"
    assert made.policy == "other"
    assert made.branch is not None
    assert (made.branch.parent_id, made.branch.step) == (parent.trajectory_id, 1)
    assert made.branch.repeated
    assert made.steps[0].command == "cat tiny.py"
    assert "return a + b" in made.steps[2].observation
    assert made.stop_reason is StopReason.SUBMITTED
    assert "+    return a + b" in made.submission
    assert made.messages[:3] == parent.messages[:3]
    assert [m.role for m in made.messages] == ["user"] + ["assistant", "user"] * 3 + ["assistant"]

    later = branch(parent, 3, tiny_task, provider, ScriptedPolicy(replies("pwd", "submit")))
    assert later.steps[3].observation.endswith("/tests")
    grandchild = branch(later, 4, tiny_task, provider, ScriptedPolicy(replies("submit")))
    assert grandchild.branch is not None
    assert grandchild.branch.parent_id == later.trajectory_id
    assert grandchild.submission == parent.submission


def test_only_what_the_branch_samples_has_tokens(tiny_task, provider, parent, tokenizer):
    policy = TokenPolicy(
        "tiny", ScriptedTokenServer(replies(RIGHT, "submit"), tokenizer), tokenizer
    )
    made = branch(parent, 1, tiny_task, provider, policy)
    assert made.tokens is not None
    assert [step.token_span is not None for step in made.steps] == [False, True, True]
    read = policy.open(parent.messages[:3], max_context_tokens=4000).tokens().prompt_ids
    assert made.tokens.prompt_ids == read  # what the parent read, and none of it scored
    assert sum(made.tokens.response_mask) == sum(
        stop - start for start, stop in (step.token_span for step in made.steps[1:])
    )


def test_a_record_that_does_not_repeat_is_said_in_the_branch(tiny_task, provider, parent):
    steps = (parent.steps[0].model_copy(update={"observation": "other"}), *parent.steps[1:])
    changed = parent.model_copy(update={"steps": steps})
    made = branch(changed, 1, tiny_task, provider, ScriptedPolicy(replies("submit")))
    assert made.branch is not None
    assert not made.branch.repeated


def test_infrastructure_is_a_stop_reason_and_a_wrong_step_an_error(tiny_task, provider, parent):
    dead = FakeProvider(start_error=SandboxError("gone"))
    made = branch(parent, 1, tiny_task, dead, ScriptedPolicy(replies("submit")))
    assert made.stop_reason is StopReason.SANDBOX_ERROR
    assert made.excluded
    with pytest.raises(ReplayError, match="expected a step from 1 to 5, found 8"):
        branch(parent, 7, tiny_task, provider, ScriptedPolicy([]))
    with pytest.raises(ReplayError, match="nothing was said after step 4"):
        branch(parent, 4, tiny_task, provider, ScriptedPolicy([]))


@pytest.mark.docker
def test_a_better_branch_of_a_failed_run_is_graded_resolved(tiny_task, tiny_image, docker_provider):
    task = tiny_task.model_copy(update={"image": tiny_image})
    grader = DockerGrader(docker_provider)
    policy = ScriptedPolicy(replies("cat tiny.py", WRONG, "submit"))
    failed = rollout(task, docker_provider, policy, COMPACT, Limits(), grader=grader)
    assert failed.reward is not None
    assert not failed.reward.resolved
    better = ScriptedPolicy(replies(RIGHT, "submit"))
    made = branch(failed, 1, task, docker_provider, better, grader=grader)
    assert made.reward is not None
    assert made.reward.resolved
