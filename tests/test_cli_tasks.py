"""The verbs `contextrl tasks show`, `contextrl tasks validate` and `contextrl clean`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contextrl.envs.cleanup import run_label
from contextrl.envs.docker import DockerProvider
from contextrl.envs.errors import EngineUnavailableError, TaskRowError
from contextrl.envs.tasks import write_tasks
from contextrl.scripts.cli_tasks import app
from contextrl.scripts.console import ScriptError


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
    (tmp_path / "empty.jsonl").touch()
    result = CliRunner().invoke(app, ["validate", "--tasks", str(tmp_path / "empty.jsonl")])
    assert isinstance(result.exception, ScriptError)
    assert "expected at least one task, found none" in str(result.exception)


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


def python(env, *arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_clean_without_an_engine_is_done_unless_an_engine_was_asked_for(tmp_path):
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    env |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    left = "from contextrl.envs.leases import new_folder; print(new_folder('contextrl-ns-'))"
    stale = Path(python(env, "-c", left).stdout.strip())
    assert stale.is_dir()
    clean = ("-m", "contextrl.scripts.cli", "clean")
    done = python(env, *clean)
    assert (done.returncode, stale.exists()) == (0, False)
    assert f"removed {stale}" in done.stdout
    assert done.stderr.startswith("no containers looked for: expected a running Docker engine")
    assert done.stderr.count("\n") == 1
    for option in ("--all", "--images", "--run=swe-1"):
        done = python(env, *clean, option)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "expected a running Docker engine" in done.stderr


@pytest.mark.docker
def test_clean_takes_a_run_by_its_folder(docker_client, tiny_task, tiny_image, tmp_path):
    task = tiny_task.model_copy(update={"image": tiny_image})
    runs = [tmp_path / place / "swe-1" for place in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
    with (
        DockerProvider(docker_client, run_id=run_label(runs[0])) as mine,
        DockerProvider(docker_client, run_id=run_label(runs[1])) as others,
    ):
        mine.start(task)
        other = others.start(task)
        done = python(os.environ, "-m", "contextrl.scripts.cli", "clean", "--run", str(runs[0]))
        assert (done.returncode, done.stderr) == (0, "1 containers removed\n")
        assert run_label(runs[0]) in done.stdout
        assert other.exec("true", timeout_s=20).exit_code == 0
