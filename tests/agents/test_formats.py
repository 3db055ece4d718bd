"""Rows of public trajectory sets: small ones written here, real ones where they are at hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from contextrl.agents.errors import ForeignFileError, ForeignRowError
from contextrl.agents.formats.calls import command_of, tool_calls, written_call
from contextrl.agents.formats.files import rows, trajectory_files
from contextrl.agents.formats.read import read_row, repository_of
from contextrl.agents.formats.types import Format
from contextrl.agents.types import StopReason

DATA = Path(__file__).parents[2].parent / "shared" / "data"
for _folder in Path(__file__).parents:
    if (_folder / "shared" / "data" / "trajectory_formats").is_dir():
        DATA = _folder / "shared" / "data"
        break

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real rows are not at hand")

MINI = {
    "instance_id": "someone__shapes.0123abcd.func_basic__x1",
    "messages": [
        {"role": "system", "content": "You are an agent."},
        {
            "role": "user",
            "content": "<pr_description>\nclamp fails\n</pr_description>\n<instructions>",
        },
        {"role": "assistant", "content": "THOUGHT: look\n\n```bash\ncat a.py\n```"},
        {"role": "user", "content": "<returncode>1</returncode>\n<output>\nno\n</output>"},
        {"role": "assistant", "content": "```bash\nsubmit\n```"},
    ],
    "id": "s1",
}


def test_a_row_of_the_papers_set_is_read():
    run = read_row(MINI)
    assert run.format is Format.MINI_PLUS
    assert (run.repo, run.base_commit, run.problem) == ("someone/shapes", "0123abcd", "clamp fails")
    first, last = run.trajectory.steps
    assert (first.command, first.exit_code) == ("cat a.py", 1)
    assert last.command == "submit"
    assert run.trajectory.reward is None  # the set says nothing of outcomes
    assert run.trajectory.trajectory_id.endswith("/s1")


def test_json_calls_become_text_that_is_read_like_published_xml():
    arguments = {"command": "str_replace", "path": "/a.py", "old_str": "x = 1", "new_str": "x = 2"}
    text = "I fix it.\n\n" + written_call("str_replace_editor", json.dumps(arguments))
    (call,) = tool_calls(text)
    assert call.arguments == arguments
    assert {key: text[slice(*span)] for key, span in call.spans.items()} == arguments
    assert command_of(text) == (
        "str_replace_editor str_replace /a.py --old_str 'x = 1' --new_str 'x = 2'"
    )


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("no command", None),
        ("```python\nx\n```\nthen\n```bash\nls\n```", "ls"),
        ("I open it.\n```\nopen a.py 3\n```", "open a.py 3"),
        ("<function=bash>\n<parameter=command>ls -a</parameter>\n</function>", "ls -a"),
        ("<function=bash>\n<parameter=command>cut off", "cut off"),
        ("```bash\ncat <<'E'\nnever closed", "cat <<'E'\nnever closed"),
    ],
)
def test_the_command_of_a_reply(text, command):
    assert command_of(text) == command


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([], "expected an object"),
        ({"a": 1}, "expected a row of one of"),
        ({**MINI, "messages": []}, "expected a list of messages, found nothing"),
        ({**MINI, "messages": [{"role": "user", "content": "x"}]}, "expected a reply"),
        ({**MINI, "messages": [{"role": "wizard", "content": "x"}]}, "message 0: unknown role"),
        ({**MINI, "messages": [{"role": "user", "content": 5}]}, "message 0: expected text"),
        ({**MINI, "messages": "{not json"}, "JSONDecodeError"),
        ({"history": [None], "trajectory": []}, "AttributeError"),
    ],
)
def test_an_unreadable_row_says_why(row, complaint):
    with pytest.raises(ForeignRowError, match=complaint):
        read_row(row)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("Submitted", StopReason.SUBMITTED),
        ("submitted (exit_context)", StopReason.CONTEXT),
        ("LimitsExceeded", StopReason.MAX_TURNS),
        ("exit_environment_error", StopReason.SANDBOX_ERROR),
    ],
)
def test_how_a_run_ended(status, reason):
    row = {"messages": MINI["messages"], "info": {"exit_status": status}, "instance_id": "a__b-1"}
    assert read_row(row).trajectory.stop_reason is reason


def test_ids_name_repositories():
    assert repository_of("pylint-dev__astroid.b114f6b5.pr_1") == ("pylint-dev/astroid", "b114f6b5")
    assert repository_of("django__django-11099") == ("django/django", "")
    assert repository_of("toolz_1") == ("", "")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    many = [{**MINI, "id": str(n)} for n in range(5)]
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(many), path, row_group_size=2)
    else:
        text = json.dumps(many, indent=1)
        if "jsonl" in suffix:
            text = "".join(json.dumps(row) + "\n" for row in many)
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    assert [each.row["id"] for each in rows(path)] == list("01234")
    assert [each.row["id"] for each in rows(path, {1, 4})] == ["1", "4"]


def test_a_broken_line_is_a_row_with_a_reason_and_the_rest_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(MINI) + "\n{broken\n" + json.dumps(MINI) + "\n")
    found = list(rows(path))
    assert [bool(each.error) for each in found] == [False, True, False]
    assert found[1].number == 1


def test_a_missing_or_torn_file_is_named(tmp_path):
    with pytest.raises(ForeignFileError, match="found none"):
        trajectory_files(tmp_path / "nothing")
    torn = tmp_path / "rows.jsonl.gz"
    torn.write_bytes(gzip.compress(json.dumps(MINI).encode())[:-20])
    with pytest.raises(ForeignFileError, match="cannot be read"):
        list(rows(torn))


@needs_data
@pytest.mark.parametrize(
    ("file", "format_", "count", "commands"),
    [
        ("nebius_swe-agent-trajectories.json.gz", Format.NEBIUS, 5, 1.0),
        ("swe-gym_openhands_sampled_trajectories.json.gz", Format.OPENHANDS, 5, 0.8),
        ("swe-smith.json.gz", Format.SWE_SMITH, 5, 1.0),
        ("swe_agent_pydantic.traj.gz", Format.SWE_AGENT, 1, 1.0),
    ],
)
def test_every_real_row_is_read(file, format_, count, commands):
    runs = [read_row(at.row, name=at.name) for at in rows(DATA / "trajectory_formats" / file)]
    assert [run.format for run in runs] == [format_] * count
    # Two of the real SWE-smith rows have no patch.
    patched = sum(run.trajectory.submission.startswith("diff --git") for run in runs)
    assert patched == count - 2 * (format_ is Format.SWE_SMITH)
    for run in runs:
        steps = run.trajectory.steps
        assert sum(step.command is not None for step in steps) >= commands * len(steps)
        assert run.repo
        assert 20 < len(run.problem) < 20_000
        assert "\r" not in run.trajectory.messages[-1].content


@needs_data
def test_every_real_mini_swe_agent_run_is_read():
    file = DATA / "mini_swe_verified_trajectories.jsonl.gz"
    runs = [read_row(at.row, name=at.name) for at in rows(file)]
    assert len({run.trajectory.trajectory_id for run in runs}) == 233
    assert sum(run.trajectory.reward.resolved for run in runs) == 168
    assert all(len(run.base_commit) == 40 for run in runs)
    assert all(step.command for run in runs for step in run.trajectory.steps)
