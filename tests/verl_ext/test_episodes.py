"""Episodes of a training process, on a node without a Docker engine."""

from __future__ import annotations

import contextlib

import pytest

from contextrl.agents.prompting import COMPACT
from contextrl.agents.scripted import ScriptedPolicy, solution_script
from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.tasks import write_tasks
from contextrl.verl_ext import episodes as episodes_module
from contextrl.verl_ext.episodes import Episodes
from contextrl.verl_ext.settings import JobConfig

pytestmark = pytest.mark.docker


def test_a_node_without_docker_plays_in_namespaces(
    namespace_provider, tiny_task, tiny_image, tmp_path, monkeypatch
):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    bug = tiny_task.model_copy(update={"image": tiny_image})
    write_tasks(tmp_path / "tasks.jsonl", [bug])
    config = {
        "run_dir": str(tmp_path / "run"),
        "prompts": "compact",
        "sandbox": {"concurrency": 1, "roots": str(namespace_provider._roots)},
        "tasks": {"train": str(tmp_path / "tasks.jsonl")},
    }
    with contextlib.closing(Episodes.open(JobConfig.from_mapping(config))) as episodes:
        episodes.expect(bug.task_id)
        policy = ScriptedPolicy(solution_script(bug, COMPACT))
        place = {"phase": "train", "train_step": 1, "sample": 0}
        trajectory = episodes.play(policy, task_id=bug.task_id, **place)
    assert trajectory.reward is not None
    assert trajectory.reward.resolved, trajectory.reward.detail

    config["sandbox"] = {"roots": str(tmp_path / "none")}
    with pytest.raises(EngineUnavailableError, match="expected the unpacked image"):
        Episodes.open(JobConfig.from_mapping(config))


def test_absent_images_are_built_from_the_named_clones(tiny_task, tmp_path, monkeypatch):
    asked = {}

    def open_provider(**settings):
        asked.update(settings)
        raise EngineUnavailableError("enough seen")

    monkeypatch.setattr(episodes_module, "open_provider", open_provider)
    write_tasks(tmp_path / "tasks.jsonl", [tiny_task])
    config = {
        "run_dir": str(tmp_path / "run"),
        "sandbox": {"repos": str(tmp_path / "clones")},
        "tasks": {"train": str(tmp_path / "tasks.jsonl")},
    }
    with pytest.raises(EngineUnavailableError, match="enough seen"):
        Episodes.open(JobConfig.from_mapping(config))
    assert asked["repos"] == tmp_path / "clones"
