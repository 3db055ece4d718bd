"""The verbs `contextrl tasks show`, `contextrl tasks validate` and `contextrl clean`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from contextrl.envs.errors import EngineUnavailableError, TaskRowError
from contextrl.envs.tasks import write_tasks
from contextrl.scripts.cli_tasks import app


@pytest.fixture
def tasks_file(tmp_path, tiny_task):
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [tiny_task, tiny_task.model_copy(update={"task_id": "tiny-2"})])
    return path


def test_show_lists_tasks_or_prints_them(tasks_file):
    result = CliRunner().invoke(app, ["show", "--tasks", str(tasks_file)])
    assert result.exit_code == 0
    assert "tiny-1" in result.stdout
    result = CliRunner().invoke(app, ["show", "--tasks", str(tasks_file), "--limit", "1", "--json"])
    assert [json.loads(line)["task_id"] for line in result.stdout.splitlines()] == ["tiny-1"]


def test_errors_of_ours_reach_the_command_line_as_such(tasks_file, tmp_path, monkeypatch):
    result = CliRunner().invoke(app, ["show", "--tasks", str(tmp_path / "none.jsonl")])
    assert isinstance(result.exception, TaskRowError)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    result = CliRunner().invoke(app, ["validate", "--tasks", str(tasks_file)])
    assert isinstance(result.exception, EngineUnavailableError)


@pytest.mark.docker
def test_validate_exits_1_when_a_task_does_not_hold(tiny_task, tiny_image, tmp_path):
    good = tiny_task.model_copy(update={"image": tiny_image})
    bad = good.model_copy(update={"task_id": "bad", "pass_to_pass": ("tests/test_tiny.py::no",)})
    write_tasks(tmp_path / "tasks.jsonl", [good, bad])
    command = ["validate", "--tasks", str(tmp_path / "tasks.jsonl")]
    result = CliRunner().invoke(app, [*command, "--limit", "1"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["problem"] == "" for line in lines] == [True, False]
    assert "tests/test_tiny.py::no missing" in lines[1]["problem"]
