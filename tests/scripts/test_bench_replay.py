"""The benchmark of re-execution: its commands, and how it counts what became of them."""

from __future__ import annotations

import pytest

from contextrl.agents.replay import Cause, ReplayReport, StepReplay, StepResult
from contextrl.agents.replay_normal import Match
from contextrl.envs.types import Task, TaskSource
from contextrl.scripts.cli_bench_replay import COMMANDS, count, text_of

PATCH = "--- a/toy/core.py\n+++ b/toy/core.py\n@@ -1 +1 @@\n-a\n+b\n"


@pytest.fixture
def task() -> Task:
    return Task(
        task_id="t",
        source=TaskSource.MUTATION,
        repo="toy/toy",
        base_commit="0" * 40,
        problem="p",
        image="i",
        gold_patch=PATCH,
        fail_to_pass=("toy/tests/test_core.py::test_a",),
    )


def test_a_command_names_the_files_of_its_task(task):
    texts = {command.name: text_of(command, task) for command in COMMANDS}
    assert texts["head"] == "cat toy/core.py | head -80"
    assert texts["tests"] == "python -m pytest -q toy/tests/test_core.py"
    assert texts["set"] == "python -c \"print({'a', 'b', 'c', 'd'}, object())\""
    assert "{" not in texts["import"]
    assert len(texts) == len(COMMANDS) == 28


def test_steps_are_counted_by_command_and_without_those_that_never_repeat():
    plain, never = COMMANDS[0], next(each for each in COMMANDS if each.never_repeats)
    steps = (
        StepReplay(index=0, result=StepResult.REPRODUCED, match=Match.EXACT),
        StepReplay(index=1, result=StepResult.UNSTABLE, cause=Cause.OUTPUT),
        StepReplay(index=2, result=StepResult.DIVERGED, cause=Cause.EXIT_CODE),
        StepReplay(index=3, result=StepResult.NOT_RUN, cause=Cause.SUBMISSION),
    )
    report = ReplayReport(trajectory_id="a", task_id="t", steps=steps, submission_equal=False)
    found = count([report], {"a": [plain, never]})
    assert (found.steps, found.reproduced, found.unstable, found.diverged) == (3, 1, 1, 1)
    assert (found.reproduced_of_these, found.steps_that_can_repeat) == (1, 2)
    assert found.submissions_differ == 1
    assert {each.name: each.results for each in found.commands} == {
        plain.name: {"exact": 1},
        never.name: {"unstable output": 1},
        "fix": {"diverged exit-code": 1},
    }
