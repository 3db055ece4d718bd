"""A stage whose episodes could not be played is not cached, and goes on where it was."""

from __future__ import annotations

import contextlib

import pytest

from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import read_trajectories
from contextrl.agents.types import Limits, StopReason
from contextrl.envs.errors import ImageError
from contextrl.envs.fake import FakeProvider
from contextrl.envs.types import Reward, Verdict
from contextrl.scripts import job_open_tasks, job_play
from contextrl.scripts.job_play import NotPlayedError
from contextrl.scripts.stages import Cache
from contextrl.verl_ext.settings import JobConfig, TaskConfig
from contextrl.verl_ext.settings_sandbox import SandboxConfig

JOB = JobConfig(
    prompts="compact",
    limits=Limits(max_turns=3),
    sandbox=SandboxConfig(concurrency=1),
    tasks=TaskConfig(package="toolz", train_limit=1, candidates=2, candidate_samples=2),
)


class Place(FakeProvider):
    """Where all, none, or the episodes of one task can be played."""

    def __init__(self, error: Exception | None = None, *, only_of: str = "") -> None:
        super().__init__(replies=lambda command: "ok")
        self.error, self.only_of = error, only_of
        self.asked: list[str] = []

    def start(self, task):
        self.asked.append(task.task_id)
        if self.error is not None and self.only_of in task.task_id:
            raise self.error
        return super().start(task)


class AlwaysResolved:
    def __init__(self, provider, at_once) -> None:
        pass

    def grade(self, task, diff):
        return Reward(verdict=Verdict.RESOLVED, tests={})


@pytest.fixture
def choose(tiny_task, tmp_path, monkeypatch):
    """Stage `open` in a place of its own, with a policy that needs no model."""
    as_it_is = {"setup_patch": "", "gold_patch": ""}
    tasks = [tiny_task.model_copy(update={"task_id": f"tiny-{n}", **as_it_is}) for n in range(2)]
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").touch()

    class Server:
        tokenizer = None

        @classmethod
        def from_pretrained(cls, path, **_):
            return cls()

        def close(self):
            pass

    class Candidates:
        def candidates(self):
            return tasks

    submit = job_play.prompt_set("compact").render_reply("submit", thought="")
    monkeypatch.setattr(job_play, "LocalTokenServer", Server)
    monkeypatch.setattr(job_play, "TokenPolicy", lambda *_, **__: ScriptedPolicy([submit]))
    monkeypatch.setattr(job_play, "DockerGrader", AlwaysResolved)

    def run(place):
        monkeypatch.setattr(job_play, "open_provider", lambda **_: contextlib.closing(place))
        cache = Cache(tmp_path / "cache")
        return job_open_tasks.choose_open_tasks(JOB, model, Candidates(), cache, lambda *_: None)

    return run


def test_episodes_that_could_not_be_played_make_no_choice(choose):
    for _ in range(2):  # nor is the second time a cached one
        with pytest.raises(NotPlayedError, match="ImageError: no space left on device") as caught:
            choose(Place(ImageError("no space left on device")))
        assert "\n" not in str(caught.value)
    chosen, cached = choose(Place())
    assert not cached
    assert {t.stop_reason for t in read_trajectories(chosen.parent / "episodes")} == {
        StopReason.SUBMITTED
    }
    assert choose(Place())[1]


def test_only_what_failed_is_played_again(choose):
    with pytest.raises(NotPlayedError, match="of 4 episodes"):
        choose(Place(ImageError("no such image"), only_of="tiny-1"))
    place = Place()
    choose(place)
    assert place.asked == ["tiny-1", "tiny-1"]


def test_a_bug_met_by_one_episode_stops_the_stage(choose):
    with pytest.raises(NotPlayedError, match=r"2 that met a bug, the first of them tiny-1/open"):
        choose(Place(ValueError("a bug"), only_of="tiny-1"))
    place = Place()
    choose(place)
    assert place.asked == ["tiny-1", "tiny-1"]
