"""A recorded episode re-executed: in the fake sandbox, whose shell is real, and in Docker."""

from __future__ import annotations

import pytest

from contextrl.agents.prompting import COMPACT, SWE
from contextrl.agents.replay import Cause, StepResult, replay
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.types import Limits, Trajectory
from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.fake import FakeProvider
from contextrl.envs.types import ExecResult

FIX = "sed -i 's/a - b/a + b/' tiny.py"
COMMANDS = (
    "cat tiny.py",
    "cd tests && ls",
    "python -c 'import time; print(object()); time.sleep(0.01)'; mktemp",
    "pwd; cd ..",
    FIX,
    "time git diff",
    "exit 3",
)


def record(task, provider, commands=COMMANDS, prompts=COMPACT, limits=None) -> Trajectory:
    replies = [prompts.render_reply(command, thought="look") for command in commands]
    replies.append(prompts.render_reply(prompts.submit_command, thought="done"))
    policy = ScriptedPolicy(replies)
    return rollout(task, provider, policy, prompts, limits or Limits(command_timeout_s=20.0))


def altered(trajectory: Trajectory, index: int, **fields: object) -> Trajectory:
    steps = list(trajectory.steps)
    steps[index] = steps[index].model_copy(update=fields)
    return trajectory.model_copy(update={"steps": tuple(steps)})


@pytest.fixture
def provider(tiny_files):
    provider = FakeProvider(tiny_files)
    yield provider
    provider.close()


@pytest.mark.parametrize("prompts", [COMPACT, SWE], ids=["compact", "swe"])
def test_an_honest_record_reproduces_whatever_its_addresses_and_times(tiny_task, provider, prompts):
    trajectory = record(tiny_task, provider, prompts=prompts)
    report = replay(trajectory, tiny_task, provider)
    assert report.reproduced, report
    assert report.submission_equal
    assert "a + b" in trajectory.submission
    assert report.n_run == len(COMMANDS)
    assert report.steps[-1].cause is Cause.SUBMISSION
    assert all(sandbox.closed for sandbox in provider.started)


def test_the_first_real_divergence_is_named(tiny_task, provider):
    trajectory = altered(record(tiny_task, provider), 1, observation="__init__.py\nother.py")
    report = replay(trajectory, tiny_task, provider)
    assert not report.reproduced
    assert report.first_divergence is not None
    assert report.first_divergence.index == 1
    assert report.first_divergence.cause is Cause.OUTPUT
    assert report.first_divergence.recorded_line == "other.py"
    assert report.first_divergence.repeated_line == "test_tiny.py"


def test_another_exit_code_diverges_even_if_the_output_is_the_same(tiny_task, provider):
    report = replay(altered(record(tiny_task, provider), 0, exit_code=1), tiny_task, provider)
    assert [step.cause for step in report.divergences] == [Cause.EXIT_CODE]


def test_a_time_limit_that_only_one_of_them_met_is_its_own_cause(tiny_task, provider):
    trajectory = record(tiny_task, provider, ["sleep 30"], limits=Limits(command_timeout_s=1.0))
    assert trajectory.steps[0].timed_out
    assert replay(trajectory, tiny_task, provider).reproduced
    # On a busy machine one second may be too short for any command: a minute is not.
    limits = {**trajectory.config["limits"], "command_timeout_s": 60.0}
    patient = {**trajectory.config, "limits": limits}
    quick = altered(trajectory, 0, command="echo a").model_copy(update={"config": patient})
    (step,) = replay(quick, tiny_task, provider).divergences
    assert step.cause is Cause.TIME_LIMIT


def test_a_record_of_another_diff_diverges_though_every_step_agrees(tiny_task, provider):
    trajectory = record(tiny_task, provider).model_copy(update={"submission": "other"})
    report = replay(trajectory, tiny_task, provider)
    assert report.divergences == ()
    assert report.diverged


def test_it_stops_before_the_step_asked_for(tiny_task, provider):
    report = replay(record(tiny_task, provider), tiny_task, provider, to_step=2)
    assert len(report.steps) == 2
    assert report.reproduced
    assert report.submission_equal is None


def test_format_errors_and_commands_that_never_ran_are_not_run(tiny_task, provider):
    trajectory = record(tiny_task, provider)
    trajectory = altered(trajectory, 0, command=None, observation="No command was run")
    trajectory = altered(trajectory, 1, observation="", exit_code=None)
    report = replay(trajectory, tiny_task, provider)
    assert [step.cause for step in report.steps[:2]] == [Cause.NO_COMMAND, Cause.NEVER_RUN]
    assert all(step.result is StepResult.NOT_RUN for step in report.steps[:2])


def test_what_cannot_run_says_why(tiny_task, provider):
    trajectory = record(tiny_task, provider)
    other = tiny_task.model_copy(update={"task_id": "tiny-2"})
    assert "expected task tiny-1" in replay(trajectory, other, provider).error
    foreign = trajectory.model_copy(update={"config": {}})
    assert "prompt set" in replay(foreign, tiny_task, provider).error
    dead = FakeProvider(start_error=EngineUnavailableError("no engine"))
    report = replay(trajectory, tiny_task, dead)
    assert "no engine" in report.error
    assert not report.reproduced
    assert not report.diverged


@pytest.mark.docker
def test_a_record_made_in_docker_reproduces_in_docker(tiny_task, tiny_image, docker_provider):
    task = tiny_task.model_copy(update={"image": tiny_image})
    commands = [*COMMANDS, "python -m pytest -q", "find . -name '*.py'", "sleep 60 & jobs", "date"]
    report = replay(record(task, docker_provider, commands), task, docker_provider)
    assert report.reproduced, report
    broken = altered(record(task, docker_provider, commands), 0, observation="nothing")
    first = replay(broken, task, docker_provider).first_divergence
    assert first is not None
    assert first.index == 0


def test_a_command_that_never_repeats_is_unstable_and_blames_nobody(tiny_task, provider):
    trajectory = record(tiny_task, provider, ["echo $RANDOM $RANDOM", "cat tiny.py"])
    report = replay(trajectory, tiny_task, provider)
    assert report.steps[0].result is StepResult.UNSTABLE
    assert report.reproduced
    assert replay(trajectory, tiny_task, provider, looks=1).diverged


def test_a_command_that_only_a_third_look_shows_to_be_unstable_blames_nobody(
    make_task, make_provider
):
    """It gives 1 in the record, then 2, 2 and 3: two looks agree, and not with the record."""
    given = iter("1223")
    provider = make_provider(
        lambda command: ExecResult(output=next(given), exit_code=0, seconds=0.0)
    )
    task = make_task()
    report = replay(record(task, provider, ["free"]), task, provider)
    assert report.steps[0].result is StepResult.UNSTABLE
    assert report.reproduced
    assert provider.starts == 4


def test_what_diverges_is_repeated_until_the_looks_agree_and_no_more(tiny_task, provider):
    trajectory = altered(record(tiny_task, provider, ["cat tiny.py"]), 0, observation="other")
    report = replay(trajectory, tiny_task, provider)
    assert report.first_divergence is not None
    assert len(provider.started) == 1 + 3


def test_a_diff_that_never_repeats_blames_nobody(tiny_task, provider):
    report = replay(
        record(tiny_task, provider, ["echo $RANDOM$RANDOM > noise.txt"]), tiny_task, provider
    )
    assert report.submission_unstable
    assert report.submission_equal is None
    assert report.reproduced
