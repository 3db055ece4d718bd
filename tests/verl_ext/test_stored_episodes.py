"""What the store holds of a training's episodes is what the trainer got."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from contextrl.agents.errors import RunStoreError
from contextrl.agents.prompting import COMPACT
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import RunStore, read_trajectories
from contextrl.agents.types import StopReason
from contextrl.envs.errors import SandboxError
from contextrl.envs.fake import FakeProvider
from contextrl.envs.types import Reward, Verdict
from contextrl.verl_ext.episodes import EPISODES_FOLDER, FATAL, Episodes
from contextrl.verl_ext.settings import JobConfig


class AlwaysResolved:
    def grade(self, task, diff):
        return Reward(verdict=Verdict.RESOLVED, tests={})


@pytest.fixture
def episodes_of(tiny_task, tmp_path):
    """Episodes of a process that begins or resumes the training in `tmp_path`."""
    task = tiny_task.model_copy(update={"setup_patch": ""})

    def make(provider):
        return contextlib.closing(
            Episodes(
                job=JobConfig(run_dir=str(tmp_path), prompts="compact"),
                tasks={task.task_id: task},
                provider=provider,
                grader=AlwaysResolved(),
                prompts=COMPACT,
                store=RunStore.open(tmp_path / EPISODES_FOLDER, {"run": "x"}, resume=True),
                threads=ThreadPoolExecutor(1),
            )
        )

    return make


def play(episodes):
    policy = ScriptedPolicy([COMPACT.render_reply(c, thought="") for c in ("ls", "submit")])
    (task_id,) = episodes.tasks
    return episodes.play(policy, task_id=task_id, phase="validate", train_step=16, sample=0)


def test_an_episode_that_a_resumed_step_plays_again_is_the_one_that_is_kept(episodes_of, tmp_path):
    removed = SandboxError("container was removed by Ctrl-C")
    with episodes_of(FakeProvider(replies={"ls": removed})) as episodes:
        assert play(episodes).stop_reason is StopReason.SANDBOX_ERROR
    with episodes_of(FakeProvider(replies={"ls": "a.py"})) as episodes:
        second = play(episodes)
    assert second.reward is not None
    assert list(read_trajectories(tmp_path / EPISODES_FOLDER)) == [second]


def test_an_episode_that_cannot_be_stored_ends_the_training(episodes_of, tmp_path, monkeypatch):
    def full(self, trajectory):
        raise RunStoreError("run folder x: not stored: is the disk full?")

    monkeypatch.setattr(RunStore, "append", full)
    provider = FakeProvider(replies={"ls": "a.py"})
    with episodes_of(provider) as episodes, pytest.raises(RunStoreError):
        play(episodes)
    assert "is the disk full?" in (tmp_path / FATAL).read_text()
