"""Every way an episode can end, and what its trajectory says about it."""

from __future__ import annotations

import threading
import time

import pytest

from contextrl.agents.errors import ContextFullError, EpisodeCancelledError, PolicyError
from contextrl.agents.prompting import COMPACT, SWE
from contextrl.agents.rollout import retry_infrastructure, rollout
from contextrl.agents.scripted import ScriptedPolicy, ScriptedSession
from contextrl.agents.types import Limits, StopReason, Trajectory
from contextrl.envs.errors import EngineUnavailableError, ImageError, SandboxError, TaskSetupError
from contextrl.envs.types import ExecResult


def bash(command: str) -> str:
    return COMPACT.render_reply(command, thought="")


def policy(*replies: str) -> ScriptedPolicy:
    return ScriptedPolicy(replies)


class FailingPolicy:
    """Plays its replies, then raises."""

    name = "failing"

    def __init__(self, error: Exception, *replies: str, at_open: bool = False) -> None:
        self.error, self.replies, self.at_open = error, replies, at_open

    def open(self, messages, *, max_context_tokens):
        if self.at_open:
            raise self.error
        session = ScriptedSession(self.replies)
        play = session.act

        def act(*, max_new_tokens):
            try:
                return play(max_new_tokens=max_new_tokens)
            except PolicyError:
                raise self.error from None

        session.act = act
        return session


def test_an_episode_that_submits_is_graded_on_its_diff(task, limits, make_provider, make_grader):
    provider, grader = make_provider(), make_grader()
    trajectory = rollout(
        task, provider, policy(bash("ls"), bash("submit")), COMPACT, limits, grader=grader
    )
    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert trajectory.reward is not None
    assert trajectory.reward.resolved
    assert trajectory.submission == "a diff"
    assert not trajectory.excluded
    assert provider.sandboxes[0].commands == ["ls"]
    assert provider.sandboxes[0].closed == 1
    assert [(m.role, m.content) for m in trajectory.messages] == [
        ("user", task.problem),
        ("assistant", bash("ls")),
        ("user", "ran: ls"),
        ("assistant", bash("submit")),
    ]
    assert [step.command for step in trajectory.steps] == ["ls", "submit"]
    assert trajectory.trajectory_id == f"{task.task_id}/rollout-0/0"
    assert trajectory.config["limits"]["max_turns"] == limits.max_turns
    assert trajectory.config["prompts"] == "compact"


def test_a_trajectory_survives_json(task, limits, make_provider, make_grader):
    trajectory = rollout(
        task, make_provider(), policy(bash("ls")), COMPACT, limits, grader=make_grader()
    )
    assert Trajectory.model_validate_json(trajectory.model_dump_json()) == trajectory


def test_swe_prompts_submit_with_their_own_command(task, limits, make_provider):
    reply = SWE.render_reply(SWE.submit_command, thought="done")
    provider = make_provider()
    assert rollout(task, provider, policy(reply), SWE, limits).stop_reason is StopReason.SUBMITTED
    assert provider.sandboxes[0].commands == []


def test_turns_run_out(task, make_provider, make_grader):
    limits = Limits(max_turns=2)
    provider, grader = make_provider(), make_grader()
    trajectory = rollout(task, provider, policy(*[bash("ls")] * 3), COMPACT, limits, grader=grader)
    assert trajectory.stop_reason is StopReason.MAX_TURNS
    assert len(trajectory.steps) == 2
    assert trajectory.steps[1].observation == "ran: ls"
    assert trajectory.messages[-1].role == "assistant"  # the last outcome was not shown
    assert trajectory.reward.resolved


def test_only_submissions_are_graded_if_asked(task, make_provider, make_grader):
    grader = make_grader()
    trajectory = rollout(
        task,
        make_provider(),
        policy(bash("ls")),
        COMPACT,
        Limits(max_turns=1),
        grader=grader,
        grade_unsubmitted=False,
    )
    assert trajectory.reward is None
    assert not trajectory.excluded
    assert grader.graded == []


def test_format_errors_are_answered_counted_and_end_it_in_a_row(task, make_provider):
    limits = Limits(max_format_errors=2)
    trajectory = rollout(
        task, make_provider(), policy("hm", bash("ls"), "hm", "hm", "hm"), COMPACT, limits
    )
    assert trajectory.stop_reason is StopReason.MAX_FORMAT_ERRORS
    assert trajectory.format_errors == 3
    assert [step.command for step in trajectory.steps] == [None, "ls", None, None]
    assert "exactly one command" in trajectory.messages[2].content


def test_the_wall_clock_bounds_commands_and_ends_the_episode(task, make_provider):
    def slow(command: str) -> ExecResult:
        time.sleep(0.2)
        return ExecResult(output="", exit_code=None, seconds=0.2, timed_out=True)

    provider = make_provider(slow)
    limits = Limits(wall_clock_s=0.5, command_timeout_s=60)
    trajectory = rollout(task, provider, policy(*[bash("sleep 9")] * 9), COMPACT, limits)
    assert trajectory.stop_reason is StopReason.WALL_CLOCK
    timeouts = provider.sandboxes[0].timeouts
    assert 1 <= len(timeouts) <= 3
    assert all(t <= 0.5 - 0.2 * n for n, t in enumerate(timeouts))
    assert trajectory.steps[0].timed_out


def test_a_reply_that_came_too_late_is_not_run(task, make_provider):
    class Slow(ScriptedSession):
        def act(self, *, max_new_tokens):
            time.sleep(0.1)
            return super().act(max_new_tokens=max_new_tokens)

    late = policy()
    late.open = lambda messages, *, max_context_tokens: Slow((bash("ls"),))
    provider = make_provider()
    trajectory = rollout(task, provider, late, COMPACT, Limits(wall_clock_s=0.05))
    assert trajectory.stop_reason is StopReason.WALL_CLOCK
    assert provider.sandboxes[0].commands == []


def test_a_sandbox_that_dies_is_excluded_and_not_graded(task, limits, make_provider, make_grader):
    def dies(command: str) -> Exception:
        return SandboxError("container\n is gone")

    provider, grader = make_provider(dies), make_grader()
    trajectory = rollout(task, provider, policy(bash("ls")), COMPACT, limits, grader=grader)
    assert trajectory.stop_reason is StopReason.SANDBOX_ERROR
    assert trajectory.stop_detail == "SandboxError: container is gone"
    assert trajectory.excluded
    assert trajectory.reward is None
    assert grader.graded == []
    assert provider.sandboxes[0].closed == 1


def test_a_diff_that_cannot_be_taken_is_excluded(task, limits, make_provider):
    provider = make_provider()
    start = provider.start

    def broken(task):
        sandbox = start(task)
        sandbox.diff_error = SandboxError("no diff")
        sandbox.close_error = SandboxError("no close either")
        return sandbox

    provider.start = broken
    trajectory = rollout(task, provider, policy(bash("submit")), COMPACT, limits)
    assert trajectory.stop_reason is StopReason.SANDBOX_ERROR


def test_a_sandbox_that_will_not_close_does_not_cost_the_episode(
    task, limits, make_provider, caplog
):
    provider = make_provider()
    start = provider.start

    def sticky(task):
        sandbox = start(task)
        sandbox.close_error = SandboxError("busy")
        return sandbox

    provider.start = sticky
    trajectory = rollout(task, provider, policy(bash("submit")), COMPACT, limits)
    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert "busy" in caplog.text


@pytest.mark.parametrize("at_open", [True, False])
def test_a_policy_that_fails_is_excluded(task, limits, make_provider, make_grader, at_open):
    failing = FailingPolicy(PolicyError("server down"), bash("ls"), at_open=at_open)
    provider = make_provider()
    trajectory = rollout(task, provider, failing, COMPACT, limits, grader=make_grader())
    assert trajectory.stop_reason is StopReason.POLICY_ERROR
    assert trajectory.excluded
    assert trajectory.reward is None
    assert len(trajectory.steps) == (0 if at_open else 1)
    assert all(sandbox.closed for sandbox in provider.sandboxes)


def test_an_endpoint_whose_context_is_full_ends_the_episode_and_is_graded(
    task, limits, make_provider, make_grader
):
    full = FailingPolicy(ContextFullError("maximum context length"), bash("ls"))
    trajectory = rollout(task, make_provider(), full, COMPACT, limits, grader=make_grader())
    assert trajectory.stop_reason is StopReason.CONTEXT
    assert trajectory.reward.resolved


def test_a_start_is_tried_again_and_then_excluded(task, limits, make_provider):
    provider = make_provider(start_errors=[SandboxError("busy")] * 2)
    trajectory = rollout(
        task, provider, policy(bash("submit")), COMPACT, limits, retry_delays_s=(0, 0)
    )
    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert provider.starts == 3

    provider = make_provider(start_errors=[SandboxError("busy")] * 3)
    trajectory = rollout(task, provider, policy(), COMPACT, limits, retry_delays_s=(0, 0))
    assert trajectory.stop_reason is StopReason.SETUP_ERROR
    assert trajectory.excluded


@pytest.mark.parametrize("kind", [TaskSetupError, ImageError, EngineUnavailableError])
def test_what_another_try_cannot_mend_is_not_tried_again(kind):
    tries = []

    def attempt():
        tries.append(1)
        raise kind("no")

    with pytest.raises(kind):
        retry_infrastructure(attempt, what="x", delays_s=(60, 60))
    assert len(tries) == 1


def test_grading_is_tried_again_and_its_failure_is_never_a_zero(
    task, limits, make_provider, make_grader
):
    def graded(errors: int):
        return rollout(
            task,
            make_provider(),
            policy(bash("submit")),
            COMPACT,
            limits,
            grader=make_grader(errors=errors),
            retry_delays_s=(0,),
        )

    assert graded(errors=1).reward.resolved
    failed = graded(errors=2)
    assert failed.stop_reason is StopReason.SUBMITTED
    assert failed.reward is None
    assert failed.excluded
    assert "grading container died" in failed.grading_error


def test_programming_errors_propagate_and_still_close_the_sandbox(task, limits, make_provider):
    provider = make_provider(lambda command: KeyError("a bug"))
    with pytest.raises(KeyError):
        rollout(task, provider, policy(bash("ls")), COMPACT, limits)
    assert provider.sandboxes[0].closed == 1


def test_a_cancelled_episode_leaves_no_trajectory_and_no_sandbox(task, limits, make_provider):
    cancel = threading.Event()

    def cancelling(command: str) -> ExecResult:
        cancel.set()
        return ExecResult(output="", exit_code=0, seconds=0.0)

    provider = make_provider(cancelling)
    with pytest.raises(EpisodeCancelledError):
        rollout(task, provider, policy(*[bash("ls")] * 5), COMPACT, limits, cancel=cancel)
    assert provider.sandboxes[0].commands == ["ls"]
    assert provider.sandboxes[0].closed == 1


def test_a_cancelled_episode_does_not_wait_for_another_try(task, limits, make_provider):
    cancel = threading.Event()
    cancel.set()
    provider = make_provider(start_errors=[SandboxError("the provider is closed")])
    with pytest.raises(EpisodeCancelledError):
        rollout(task, provider, policy(), COMPACT, limits, cancel=cancel, retry_delays_s=(60,))


def test_timings_account_for_where_the_time_went(task, limits, make_provider):
    def slow(command: str) -> ExecResult:
        time.sleep(0.05)
        return ExecResult(output="", exit_code=0, seconds=0.05)

    trajectory = rollout(
        task, make_provider(slow), policy(bash("a"), bash("b"), bash("submit")), COMPACT, limits
    )
    timings = trajectory.timings
    assert 0.1 <= timings.sandbox_s <= timings.total_s
    assert sum(step.sandbox_s for step in trajectory.steps) <= timings.sandbox_s
    assert 0 <= timings.overhead_s < 0.5
