"""The whole path for real: a scripted agent, a Docker sandbox, grading in a second container."""

from __future__ import annotations

import pytest

from contextrl.agents.prompting import COMPACT, SWE
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy, ScriptedTokenServer, solution_script
from contextrl.agents.tokens import TokenPolicy
from contextrl.agents.types import Limits, StopReason
from contextrl.envs.grading import DockerGrader

pytestmark = pytest.mark.docker

LIMITS = Limits(max_turns=5, max_new_tokens=200, max_context_tokens=2000)


@pytest.fixture
def bug(tiny_task, tiny_image):
    return tiny_task.model_copy(
        update={"image": tiny_image, "problem": "add in tiny.py is wrong.\ntest_add fails"}
    )


@pytest.mark.parametrize("prompts", [COMPACT, SWE])
def test_a_scripted_agent_solves_a_task(bug, docker_provider, prompts):
    policy = ScriptedPolicy(solution_script(bug, prompts))
    trajectory = rollout(
        bug, docker_provider, policy, prompts, LIMITS, grader=DockerGrader(docker_provider)
    )
    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert trajectory.reward is not None
    assert trajectory.reward.resolved, trajectory.reward.detail
    assert "+    return a + b" in trajectory.submission
    assert trajectory.timings.overhead_s < 0.1 * trajectory.timings.total_s


def test_an_agent_that_only_looks_is_unresolved(bug, docker_provider):
    view, _, submit = solution_script(bug, COMPACT)
    trajectory = rollout(
        bug,
        docker_provider,
        ScriptedPolicy([view, submit]),
        COMPACT,
        LIMITS,
        grader=DockerGrader(docker_provider),
    )
    assert trajectory.submission == ""
    assert trajectory.reward is not None
    assert not trajectory.reward.resolved


def test_a_script_as_a_token_server_leaves_what_a_model_would(bug, docker_provider, tokenizer):
    script = solution_script(bug, COMPACT)
    policy = TokenPolicy("script", ScriptedTokenServer(script, tokenizer), tokenizer)
    trajectory = rollout(bug, docker_provider, policy, COMPACT, LIMITS)
    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert trajectory.tokens is not None
    text = tokenizer.decode(trajectory.tokens.response_ids)
    assert "return a - b" in text
    assert text.endswith("```bash\nsubmit\n```<|im_end|>")
