"""A script that solves a task must survive what real lines and patches contain."""

from __future__ import annotations

import difflib
import random
import subprocess

import pytest

from contextrl.agents.errors import AgentsError, PolicyError
from contextrl.agents.parsing import parse_command
from contextrl.agents.prompting import COMPACT, SWE
from contextrl.agents.scripted import (
    ScriptedPolicy,
    ScriptedTokenServer,
    apply_command,
    solution_script,
)
from contextrl.agents.tokens import TokenPolicy


def unified(before: str, after: str, file: str = "toy.py") -> str:
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            f"a/{file}",
            f"b/{file}",
        )
    )


def run_script(script, folder) -> list[str]:
    outputs = []
    for reply in script[:-1]:
        done = subprocess.run(
            ["bash", "-c", parse_command(reply)], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    return outputs


@pytest.mark.parametrize("prompts", [COMPACT, SWE])
def test_a_one_line_bug_is_viewed_edited_and_submitted(prompts, task, tmp_path):
    (tmp_path / "toy.py").write_text(
        "def add(a, b):\n    return a - b\n\ndef sub(a, b):\n    pass\n"
    )
    script = solution_script(task, prompts)
    assert len(script) == 3
    view, _ = run_script(script, tmp_path)
    assert view == "1:def add(a, b):\n2:    return a - b\n3:\n"
    assert (tmp_path / "toy.py").read_text().startswith("def add(a, b):\n    return a + b\n\n")
    assert prompts.is_submission(parse_command(script[-1]))
    assert all(("THOUGHT" in reply) is prompts.actions.has_thought for reply in script)


def test_the_form_of_the_script_is_one_form(task):
    commands = [parse_command(reply) for reply in solution_script(task, COMPACT)]
    assert commands == [
        "grep -n '' toy.py | sed -n '/def add(/,/^[0-9]*:$/p'",
        "sed -i '2c\\    return a + b' toy.py",
        "submit",
    ]


def test_sed_edits_keep_every_character(make_task, tmp_path):
    rng = random.Random(0)
    alphabet = "ab \t\\'\"$`&/!#{}[]().,;nrtx01\u00e9"
    path = tmp_path / "my toy.py"
    for _ in range(60):
        lines = ["".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(5)]
        after = list(lines)
        after[2] = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
        if after == lines:
            continue
        before_text, after_text = "\n".join(lines) + "\n", "\n".join(after) + "\n"
        path.write_text(before_text)
        patch = unified(before_text, after_text, "my toy.py")
        run_script(solution_script(make_task(gold_patch=patch), COMPACT), tmp_path)
        assert path.read_text() == after_text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\nb\nc\n", "a\nc\n"),  # a deletion
        ("a\nc\n", "a\nb\nc\n"),  # an insertion
        ("a\nb\nc\n", "a\n\nc\n"),  # sed's c cannot write an empty line
        ("a\nb\nc\n", "b\na\nc\n"),  # a move
        ("a\nb", "a\nc"),  # no newline at the end
        ("a\r\nb\r\n", "a\r\nc\r\n"),  # Windows line ends
        ("```\nx\n```\nPATCH\n", "```\ny\nz\n```\nPATCH\n"),  # fences, and our own delimiter
        ("x\n" * 50, "y\n" + "x\n" * 48 + "z\n"),  # two hunks
        ("$HOME `id` $(id)\n'\"\\\n", "$HOME `id` $(id)\n'\"\\\\ \nEOF\n"),  # shell metacharacters
    ],
)
def test_any_other_patch_is_applied_whole(before, after, make_task, tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "toy.py").write_bytes(before.encode())
    patch = "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            "a/toy.py",
            "b/toy.py",
        )
    )
    if not before.endswith("\n"):
        patch = (
            "--- a/toy.py\n+++ b/toy.py\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n"
            "+c\n\\ No newline at end of file\n"
        )
    script = solution_script(make_task(gold_patch=patch), COMPACT)
    assert len(script) == 2
    run_script(script, tmp_path)
    assert (tmp_path / "toy.py").read_bytes() == after.encode()


def test_a_patch_that_holds_the_delimiter_gets_another():
    command = apply_command("+x\nPATCH\nPATCH1\n")
    assert command.endswith("\nPATCH2")


def test_without_a_function_the_lines_around_are_viewed(make_task):
    lines = [f"line {n}\n" for n in range(1, 41)]
    after = [*lines[:19], "changed\n", *lines[20:]]
    task = make_task(
        problem="Crash.", gold_patch=unified("".join(lines), "".join(after), "pkg/x.py")
    )
    command = parse_command(solution_script(task, COMPACT)[0])
    assert command == "grep -n '' pkg/x.py | sed -n '12,28p'"


def test_the_function_is_taken_from_the_hunk_header_if_the_issue_has_none(make_task):
    patch = unified("a\nb\nc\n", "a\nB\nc\n").replace(" @@\n", " @@ def outer(x):\n")
    command = parse_command(solution_script(make_task(problem="?", gold_patch=patch), COMPACT)[0])
    assert "def outer(" in command


@pytest.mark.parametrize("patch", ["", "not a patch", "--- a/x\n+++ b/x\n@@ -1,9 +1 @@\n-a\n"])
def test_a_gold_patch_that_is_none_is_refused(make_task, patch):
    with pytest.raises(AgentsError, match="unified diff"):
        solution_script(make_task(gold_patch=patch), COMPACT)


def test_a_script_that_is_too_short_is_a_policy_error(tokenizer):
    session = ScriptedPolicy(["a"]).open((), max_context_tokens=9)
    session.act(max_new_tokens=1)
    with pytest.raises(PolicyError, match="1 replies"):
        session.act(max_new_tokens=1)


def test_a_scripted_token_server_serves_each_session_from_the_start(tokenizer, task):
    policy = TokenPolicy("s", ScriptedTokenServer(["one", "two"], tokenizer), tokenizer)
    sessions = [policy.open(COMPACT.render_task(task), max_context_tokens=500) for _ in range(2)]
    assert [s.act(max_new_tokens=50).text for s in sessions] == ["one", "one"]
    cut = policy.open(COMPACT.render_task(task), max_context_tokens=500).act(max_new_tokens=2)
    assert cut.truncated
    assert "one".startswith(cut.text)
