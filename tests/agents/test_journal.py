"""A running episode as its watchers see it, and what is left when its process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from contextrl.agents.batch import EpisodeRequest, run_batch
from contextrl.agents.episode import EpisodeKey
from contextrl.agents.journal import RUNNING, Journals
from contextrl.agents.prompting import COMPACT
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import RunStore, read_trajectories
from contextrl.agents.types import Limits, StopReason
from contextrl.envs.types import ExecResult

HOSTILE = "\udcff\u2028\x1b]0;x\x07</script>\n{"


class Gate:
    """A command waits here until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Semaphore(0), threading.Semaphore(0)

    def respond(self, command: str) -> ExecResult:
        self.reached.release()
        assert self.open.acquire(timeout=60)
        return ExecResult(output=f"ran: {command}{HOSTILE}\n", exit_code=3, seconds=0.0)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def player(provider):
    replies = [COMPACT.render_reply(c, thought="look") for c in ("ls", "cat a", "submit")]

    def play(request, cancel, witness):
        return rollout(
            request.task,
            provider,
            ScriptedPolicy(replies),
            COMPACT,
            Limits(),
            key=request.key,
            cancel=cancel,
            witness=witness,
        )

    return play


def test_a_running_episode_is_seen_step_by_step_and_gone_when_it_is_stored(
    make_task, make_provider, gate, tmp_path
):
    with RunStore.open(tmp_path, {}) as store:
        requests = [EpisodeRequest(make_task(), EpisodeKey(phase="train", sample=2))]
        provider = make_provider(gate.respond)
        batch = threading.Thread(
            target=run_batch, args=(requests, player(provider), store), kwargs={"workers": 1}
        )
        batch.start()
        journals = Journals(tmp_path)
        assert gate.reached.acquire(timeout=60)
        (first,) = journals.look()
        assert first.trajectory.trajectory_id == "toy__add-1/train-0/2"
        assert first.trajectory.stop_reason is StopReason.UNFINISHED
        assert first.trajectory.excluded
        assert "add in toy.py is wrong" in first.trajectory.messages[0].content
        assert [step.command for step in first.trajectory.steps] == ["ls"]
        assert (first.alive, first.working) == (True, True)
        gate.open.release()
        assert gate.reached.acquire(timeout=60)
        (second,) = journals.look()
        assert [step.command for step in second.trajectory.steps] == ["ls", "cat a"]
        assert second.trajectory.steps[0].exit_code == 3
        assert f"ran: ls{HOSTILE}" in second.trajectory.steps[0].observation
        assert second.trajectory.steps[1].observation == ""
        assert [message.role for message in second.trajectory.messages[1:]] == [
            "assistant",
            "user",
            "assistant",
        ]
        gate.open.release()
        batch.join(60)
        assert journals.look() == []
        assert list((tmp_path / RUNNING).iterdir()) == []
    (stored,) = read_trajectories(tmp_path)
    assert stored.stop_reason is StopReason.SUBMITTED
    assert stored.steps[:1] == second.trajectory.steps[:1]


def test_no_store_takes_what_has_not_ended(make_task, make_provider, gate, tmp_path):
    with RunStore.open(tmp_path, {}) as store, store.journal() as journal:
        gate.open.release(2)
        request = EpisodeRequest(make_task(), EpisodeKey())
        player(make_provider(gate.respond))(request, threading.Event(), journal)
        (seen,) = Journals(tmp_path).look()
        assert (len(seen.trajectory.steps), seen.working) == (3, False)
        with pytest.raises(ValueError, match="only what has ended"):
            store.append(seen.trajectory)


CHILD = """
import sys, threading
from pathlib import Path
from contextrl.agents.episode import EpisodeKey, EpisodeRecord
from contextrl.agents.store import RunStore
from contextrl.agents.types import Message, Step
from contextrl.envs.types import Task, TaskSource

task = Task(task_id="t", source=TaskSource.MUTATION, repo="r", base_commit="0" * 40, problem="p",
            image="i", gold_patch="", fail_to_pass=("a",))
store = RunStore.open(Path(sys.argv[1]), {}, resume=True)
with store.journal() as journal:
    prompt = [Message(role="user", content="p")]
    record = EpisodeRecord(
        task=task, key=EpisodeKey(), policy="x", config={}, prompt=prompt, witness=journal
    )
    journal.begin(record)
    journal.step(0, Step(text="a", command="ls", observation="b"), done=True)
    print("ready", flush=True)
    threading.Event().wait()
"""


def test_a_killed_process_leaves_its_episode_to_be_read_until_the_run_is_resumed(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        journals = Journals(tmp_path)
        assert [each.alive for each in journals.look()] == [True]
        with RunStore.open(tmp_path, {}, resume=True):  # as the next process of a training does
            assert [each.alive for each in journals.look()] == [True]
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(60)
    (left,) = journals.look()
    assert not left.alive
    assert left.trajectory.steps[0].observation == "b"
    with RunStore.open(tmp_path, {}, resume=True):
        assert journals.look() == []


def test_half_a_line_waits_and_what_is_no_journal_is_left_out(tmp_path, caplog):
    with RunStore.open(tmp_path, {}) as store, store.journal() as journal:
        folder = tmp_path / RUNNING
        folder.mkdir()
        (folder / "noise.jsonl").write_text('{"index": 0}\n')
        (folder / "list.jsonl").write_text("[1]\n")
        (folder / "link.jsonl").symlink_to("/etc/passwd")
        os.mkfifo(folder / "pipe.jsonl")
        assert Journals(tmp_path).look() == []
        assert "not a journal" in caplog.text
        begin(journal)
        journals = Journals(tmp_path)
        (file,) = (path for path in folder.glob("*.jsonl") if len(path.stem) == 32)
        with file.open("a") as stream:
            stream.write('{"index": 0, "done": true, "step": {"text": "a", ')
            stream.flush()
            assert [len(each.trajectory.steps) for each in journals.look()] == [0]
            stream.write('"command": "ls", "observation": "b"}}\n')
        assert [len(each.trajectory.steps) for each in journals.look()] == [1]


def begin(journal) -> None:
    from contextrl.agents.episode import EpisodeRecord
    from contextrl.agents.types import Message
    from contextrl.envs.types import Task, TaskSource

    task = Task(
        task_id="t",
        source=TaskSource.MUTATION,
        repo="r",
        base_commit="0" * 40,
        problem="p",
        image="i",
        gold_patch="",
        fail_to_pass=("a",),
    )
    prompt = [Message(role="user", content="p")]
    journal.begin(EpisodeRecord(task=task, key=EpisodeKey(), policy="x", config={}, prompt=prompt))


def test_a_folder_that_takes_no_journal_costs_no_episode(
    make_task, make_provider, gate, tmp_path, caplog
):
    (tmp_path / RUNNING).write_text("a file is in the way")
    gate.open.release(2)
    with RunStore.open(tmp_path, {}) as store:
        request = EpisodeRequest(make_task(), EpisodeKey())
        report = run_batch([request], player(make_provider(gate.respond)), store, workers=1)
    assert report.finished == 1
    assert caplog.text.count("goes on without a journal") == 1


def test_a_step_costs_far_less_than_a_command(tmp_path):
    from contextrl.agents.types import Step

    step = Step(text="x" * 2000, command="ls", observation="y" * 10_000)
    with RunStore.open(tmp_path, {}) as store, store.journal() as journal:
        begin(journal)
        began = time.process_time()
        for index in range(200):
            journal.step(index, step, done=True)
        assert (time.process_time() - began) / 200 < 0.01
