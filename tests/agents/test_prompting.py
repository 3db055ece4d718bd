from __future__ import annotations

import pytest

from contextrl.agents.errors import AgentsError
from contextrl.agents.prompting import COMPACT, SWE, prompt_set
from contextrl.envs.types import ExecResult


def ran(output: str, exit_code: int | None = 0, **fields) -> ExecResult:
    return ExecResult(output=output, exit_code=exit_code, seconds=1.0, **fields)


@pytest.mark.parametrize("prompts", [SWE, COMPACT])
def test_an_issue_is_shown_and_never_evaluated(prompts, make_task):
    problem = "{{ 7 * 7 }} {% for %} & <b> \\ {# note #}"
    messages = prompts.render_task(make_task(problem=problem))
    assert problem in messages[-1].content
    assert [m.role for m in messages] == (["system", "user"] if prompts is SWE else ["user"])


def test_an_output_is_never_evaluated():
    for prompts in (SWE, COMPACT):
        assert "{{ 7*7 }}<&>" in prompts.render_observation(ran("{{ 7*7 }}<&>"))


def test_compact_shows_little_more_than_the_issue(task):
    assert COMPACT.render_task(task)[0].content == task.problem
    assert COMPACT.render_observation(ran("1:def f():\n2:    x\n")) == "1:def f():\n2:    x"
    assert COMPACT.render_observation(ran("")) == "(no output)"
    assert COMPACT.render_observation(ran("boom\n", 2)) == "(exit 2)\nboom"


def test_compact_keeps_the_first_lines_and_characters():
    shown = COMPACT.render_observation(ran("\n".join(str(n) for n in range(100))))
    assert shown.split("\n") == [*(str(n) for n in range(24)), "(cut)"]
    assert len(COMPACT.render_observation(ran("x" * 5000))) < 1_120


def test_swe_states_the_workdir_and_how_to_submit(make_task):
    text = SWE.render_task(make_task(workdir="/repo"))[1].content
    assert "/repo" in text
    assert SWE.submit_command in text


def test_swe_keeps_head_and_tail_of_a_long_output():
    output = "A" * 20_000 + "B" * 20_000
    shown = SWE.render_observation(ran(output))
    assert "A" * 5_000 in shown
    assert "B" * 5_000 in shown
    assert "30000 characters left out" in shown
    assert len(shown) < 10_600
    assert len(SWE.render_observation(ran(output), max_chars=100)) < 700


def test_a_command_stopped_by_its_limit_says_so():
    result = ran("tick\n", None, timed_out=True)
    assert "stopped by its time limit" in SWE.render_observation(result)
    assert COMPACT.render_observation(result) == "(stopped after 1 s)\ntick"


@pytest.mark.parametrize(
    ("prompts", "command", "submits"),
    [
        (COMPACT, "submit", True),
        (COMPACT, " submit\n", True),
        (COMPACT, "submit now", False),
        (COMPACT, "echo submit", False),
        (SWE, SWE.submit_command, True),
        (SWE, "echo MINI_SWE_AGENT_FINAL_OUTPUT", True),
        (SWE, 'echo "MINI_SWE_AGENT_FINAL_OUTPUT" ; git diff', True),
        (SWE, "echo MINI_SWE_AGENT_FINAL_OUTPUT_2", False),
        (SWE, "grep MINI_SWE_AGENT_FINAL_OUTPUT x", False),
        (SWE, "submit", False),
    ],
)
def test_what_counts_as_a_submission(prompts, command, submits):
    assert prompts.is_submission(command) is submits


def test_an_unknown_prompt_set_names_the_known_ones():
    with pytest.raises(AgentsError, match="compact, openhands, openhands-tags, swe, swe-plus"):
        prompt_set("fancy")
