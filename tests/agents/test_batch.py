"""Many episodes: one bad task, a kill, Ctrl-C and a full disk."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from contextrl.agents.batch import EpisodeRequest, run_batch
from contextrl.agents.episode import EpisodeKey
from contextrl.agents.errors import RunStoreError
from contextrl.agents.prompting import COMPACT
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import RunStore, read_trajectories
from contextrl.agents.types import Limits, StopReason
from contextrl.envs.errors import SandboxError
from contextrl.envs.types import ExecResult

LIMITS = Limits(max_turns=3)


@pytest.fixture
def requests(make_task):
    return [
        EpisodeRequest(make_task(f"task-{n}"), EpisodeKey(sample=sample))
        for n in range(6)
        for sample in range(2)
    ]


@pytest.fixture
def store(tmp_path):
    with RunStore.open(tmp_path, {}) as store:
        yield store


def player(provider, command: str = "ls"):
    policy = ScriptedPolicy([COMPACT.render_reply(c, thought="") for c in (command, "submit")])

    def play(request, cancel, witness):
        return rollout(
            request.task,
            provider,
            policy,
            COMPACT,
            LIMITS,
            key=request.key,
            cancel=cancel,
            witness=witness,
            retry_delays_s=(),
        )

    return play


def test_all_requests_are_played_once_and_stored(requests, store, make_provider, tmp_path):
    seen = []
    report = run_batch(
        requests,
        player(make_provider()),
        store,
        workers=4,
        on_progress=lambda report, trajectory: seen.append(trajectory.trajectory_id),
    )
    assert (report.finished, report.skipped, report.crashed) == (12, 0, [])
    stored = [t.trajectory_id for t in read_trajectories(tmp_path)]
    assert sorted(stored) == sorted(seen) == sorted(r.trajectory_id for r in requests)


def test_a_resumed_run_plays_only_what_is_missing(requests, store, make_provider):
    run_batch(requests[:5], player(make_provider()), store, workers=2)
    provider = make_provider()
    report = run_batch(requests, player(provider), store, workers=2)
    assert (report.finished, report.skipped) == (7, 5)
    assert provider.starts == 7


def test_one_bad_task_never_ends_the_run(requests, store, make_provider, tmp_path, caplog):
    provider = make_provider()
    start = provider.start

    def moody(task):
        if task.task_id == "task-1":
            raise SandboxError("no image")
        if task.task_id == "task-2":
            raise KeyError("a bug")
        return start(task)

    provider.start = moody
    report = run_batch(requests, player(provider), store, workers=3)
    assert report.finished == 10
    assert sorted(report.crashed) == ["task-2/rollout-0/0", "task-2/rollout-0/1"]
    assert "a bug" in caplog.text
    reasons = {t.task_id: t.stop_reason for t in read_trajectories(tmp_path)}
    assert reasons.pop("task-1") is StopReason.SETUP_ERROR
    assert set(reasons.values()) == {StopReason.SUBMITTED}
    assert "task-2" not in reasons


def test_ctrl_c_closes_sandboxes_and_keeps_what_finished(requests, store, make_provider, tmp_path):
    gate = threading.Event()

    def respond(command: str):
        if provider.starts > 4:
            gate.wait(20)  # a long command, ended by the provider's close
            return SandboxError("closed")
        return ExecResult(output="", exit_code=0, seconds=0.0)

    provider = make_provider(respond)

    def interrupt(report, trajectory):
        if report.finished == 4:
            os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_batch(
            requests,
            player(provider),
            store,
            workers=1,
            on_progress=interrupt,
            on_interrupt=gate.set,
        )
    assert time.monotonic() - began < 10
    assert all(sandbox.closed for sandbox in provider.sandboxes)
    assert [t.stop_reason for t in read_trajectories(tmp_path)] == [StopReason.SUBMITTED] * 4
    assert store.manifest.finished == ""


def test_a_trajectory_that_cannot_be_stored_stops_the_run(requests, store, make_provider):
    def full(trajectory):
        raise RunStoreError("the disk is full")

    store.append = full
    provider = make_provider()
    with pytest.raises(RunStoreError, match="disk is full"):
        run_batch(requests, player(provider), store, workers=2)
    assert provider.starts < len(requests)


def test_no_workers_is_refused(requests, store, make_provider):
    with pytest.raises(ValueError, match="workers"):
        run_batch(requests, player(make_provider()), store, workers=0)


def test_an_excluded_episode_is_played_again_by_whoever_goes_on(
    requests, store, make_provider, tmp_path
):
    gone = make_provider(lambda command: SandboxError("gone"))
    run_batch(requests[:3], player(gone), store, workers=1)
    report = run_batch(requests, player(make_provider()), store, workers=2)
    assert (report.finished, report.skipped) == (12, 0)
    assert {t.stop_reason for t in read_trajectories(tmp_path)} == {StopReason.SUBMITTED}
