"""A machine with a Docker engine, one without, and one that can hold no sandbox at all."""

from __future__ import annotations

import json
import logging

import pytest
from typer.testing import CliRunner

from contextrl.envs import places
from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.grading import DockerGrader
from contextrl.envs.namespace import NamespaceProvider
from contextrl.envs.places import end_run, open_provider, with_local_image, without_engine
from contextrl.envs.tasks import write_tasks
from contextrl.scripts.cli import app

pytestmark = pytest.mark.docker


@pytest.fixture
def no_engine(monkeypatch):
    """As on a node without Docker; what the fixtures hold on to keeps working."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setattr(places, "_said", places.threading.Event())


@pytest.fixture
def bug(tiny_task, tiny_image):
    return tiny_task.model_copy(update={"image": tiny_image})


def test_without_an_engine_sandboxes_are_namespaces_and_one_line_says_so(
    namespace_provider, bug, no_engine, caplog
):
    roots = namespace_provider._roots
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with open_provider(images=[bug.image], roots=roots) as provider:
                assert isinstance(provider, NamespaceProvider)
                assert with_local_image(provider, bug) is bug
                assert DockerGrader(provider).grade(bug, bug.gold_patch).resolved
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"no Docker engine: sandboxes are namespaces over the images in {roots}"
    assert end_run("any") == []
    assert without_engine(roots) == line


def test_with_an_engine_there_is_nothing_to_say(docker_client):
    assert without_engine() == ""


def test_where_neither_can_be_one_line_says_what_to_do(bubblewrap, no_engine, bug, tmp_path):
    with pytest.raises(EngineUnavailableError) as caught:
        open_provider(images=[bug.image], roots=tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    assert "start it" in said
    assert f"contextrl tasks unpack --tasks FILE --roots {tmp_path}" in said


def test_a_rollout_without_an_engine(namespace_provider, bug, no_engine, tmp_path):
    write_tasks(tmp_path / "tasks.jsonl", [bug])
    arguments = ["rollout", "--policy", "scripted", "--prompts", "openhands", "--json"]
    arguments += ["--tasks", str(tmp_path / "tasks.jsonl"), "--out", str(tmp_path / "run")]
    arguments += ["--roots", str(namespace_provider._roots)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["endings"] == {"resolved": 1}


def test_unpacked_by_the_command_that_the_error_names(bubblewrap, bug, tmp_path, docker_client):
    write_tasks(tmp_path / "tasks.jsonl", [bug])
    arguments = ["tasks", "unpack", "--tasks", str(tmp_path / "tasks.jsonl")]
    result = CliRunner().invoke(app, [*arguments, "--roots", str(tmp_path / "roots")])
    assert result.exit_code == 0, result.output
    with NamespaceProvider(tmp_path / "roots") as provider, provider.start(bug) as sandbox:
        assert sandbox.exec("cat tiny.py", timeout_s=20).exit_code == 0
