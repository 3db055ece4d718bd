"""The scripted agent that looks: it solves the task and leaves the evidence that pairs need."""

from __future__ import annotations

import difflib
import subprocess

import pytest

from contextrl.agents.errors import AgentsError
from contextrl.agents.looking import looking_script
from contextrl.agents.parsing import parse_command
from contextrl.agents.prompting import COMPACT, SWE

LINES = [f"line {number}\n" for number in range(1, 201)]


def diff(before: list[str], after: list[str], file: str = "pkg/my toy.py") -> str:
    lines = difflib.unified_diff(before, after, f"a/{file}", f"b/{file}")
    return f"diff --git a/{file} b/{file}\n" + "".join(lines)


def changed(*numbers: int) -> list[str]:
    return ["it's new\n" if n in numbers else line for n, line in enumerate(LINES, start=1)]


def play(task, prompts, folder) -> list[tuple[str, str]]:
    """(command, output) of everything but the submission, on real files."""
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "pkg").mkdir(exist_ok=True)
    (folder / "pkg" / "my toy.py").write_text("".join(LINES))
    played = []
    for reply in looking_script(task, prompts)[:-1]:
        command = parse_command(reply)
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
        played.append((command, done.stdout + done.stderr))
    return played


@pytest.mark.parametrize("numbers", [(100,), (100, 110), (20, 180)])
def test_it_sees_the_places_before_it_changes_them(make_task, tmp_path, numbers):
    task = make_task(problem="?", gold_patch=diff(LINES, changed(*numbers)))
    played = play(task, COMPACT, tmp_path)
    edit = next(n for n, (command, _) in enumerate(played) if "it's new" in command)
    before = "".join(output for _, output in played[:edit])
    assert all(f"{number}:line {number}\n" in before for number in numbers)
    assert (tmp_path / "pkg" / "my toy.py").read_text() == "".join(changed(*numbers))
    # the look afterwards shows the fix, for masking to find
    assert any("it's new" in output for _, output in played[edit + 1 :])


def test_a_test_that_the_issue_names_is_run_before_and_after(make_task, tmp_path):
    gold = diff(LINES, changed(3))
    told = make_task(
        problem="x is wrong.\ntest_x[a b] fails",
        gold_patch=gold,
        fail_to_pass=("tests/test_a.py::test_hidden", "tests/test_a.py::test_x[a b]"),
    )
    commands = [parse_command(reply) for reply in looking_script(told, SWE)]
    tests = [n for n, command in enumerate(commands) if "'tests/test_a.py::test_x[a b]'" in command]
    assert tests == [0, len(commands) - 2]
    hidden = make_task(problem="?", gold_patch=gold)
    assert not any("pytest" in reply for reply in looking_script(hidden, SWE))


@pytest.mark.parametrize("patch", ["", "not a patch"])
def test_a_gold_patch_that_is_none_is_refused(make_task, patch):
    with pytest.raises(AgentsError, match="unified diff"):
        looking_script(make_task(gold_patch=patch), COMPACT)
