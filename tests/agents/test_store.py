"""A run folder must be right after kills, under concurrency, and refuse what is not its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading

import pytest

from contextrl.agents import store as store_module
from contextrl.agents.errors import RunStoreError
from contextrl.agents.manifest import read_manifest
from contextrl.agents.store import RunStore, read_trajectories
from contextrl.agents.types import Message, StopReason, Trajectory

CONFIG = {"limits": {"max_turns": 3}, "policy": "scripted"}


def trajectory(
    name: str, *, text: str = "hi", reason: StopReason = StopReason.SUBMITTED, **fields: str
) -> Trajectory:
    return Trajectory(
        trajectory_id=name,
        task_id="t",
        policy="p",
        messages=(Message(role="user", content=text),),
        stop_reason=reason,
        **fields,
    )


def ids(folder) -> list[str]:
    return [t.trajectory_id for t in read_trajectories(folder)]


def test_what_is_appended_is_read_back(tmp_path):
    with RunStore.open(tmp_path / "run", CONFIG) as store:
        first = trajectory("a", text="\u4e16\u2028\n\u0085\udcff'\"")
        store.append(first)
        store.append(trajectory("b"))
        assert "a" in store
        assert "c" not in store
        manifest = store.finish()
    assert next(read_trajectories(tmp_path / "run")) == first
    assert ids(tmp_path / "run") == ["a", "b"]
    assert manifest.counts == {"submitted": 2}
    assert read_manifest(tmp_path / "run") == manifest
    assert manifest.versions["pydantic"]


def test_an_episode_played_again_takes_the_place_of_the_first(tmp_path):
    with RunStore.open(tmp_path, CONFIG) as store:
        store.append(trajectory("a", reason=StopReason.SANDBOX_ERROR))
        store.append(trajectory("b"))
        assert ("a" in store, store.is_settled("a"), store.is_settled("b")) == (True, False, True)
    with RunStore.open(tmp_path, CONFIG, resume=True) as store:
        assert not store.is_settled("a")
        store.append(trajectory("a"))
        assert store.is_settled("a")
        assert len(store) == 2
        assert store.finish().counts == {"submitted": 2}
    stored = [(t.trajectory_id, t.stop_reason) for t in read_trajectories(tmp_path)]
    assert stored == [("b", StopReason.SUBMITTED), ("a", StopReason.SUBMITTED)]


def test_an_episode_whose_grading_failed_is_not_settled(tmp_path):
    with RunStore.open(tmp_path, CONFIG) as store:
        store.append(trajectory("a", grading_error="SandboxError: gone"))
    with RunStore.open(tmp_path, CONFIG, resume=True) as store:
        assert not store.is_settled("a")
        assert not store.is_settled("never played")


def test_what_is_appended_during_a_reading_is_not_in_it(tmp_path):
    with RunStore.open(tmp_path, CONFIG) as store:
        store.append(trajectory("a", text="first"))
        store.append(trajectory("b"))
        reading = read_trajectories(tmp_path)
        seen = [next(reading)]
        store.append(trajectory("a", text="again"))
        seen += reading
    assert [t.messages[0].content for t in seen] == ["first", "hi"]


def test_an_existing_run_is_refused_resumed_or_overwritten(tmp_path):
    with RunStore.open(tmp_path, CONFIG) as store:
        store.append(trajectory("a"))
        store.finish()
    with pytest.raises(RunStoreError, match=r"--resume.*--overwrite"):
        RunStore.open(tmp_path, CONFIG)
    with RunStore.open(tmp_path, CONFIG, resume=True) as store:
        assert "a" in store
        assert read_manifest(tmp_path).finished == ""
        store.append(trajectory("b"))
    assert ids(tmp_path) == ["a", "b"]
    (tmp_path / "notes.txt").write_text("mine")
    with RunStore.open(tmp_path, {"other": 1}, overwrite=True) as store:
        assert len(store) == 0
    assert ids(tmp_path) == []
    assert (tmp_path / "notes.txt").exists()


def test_resuming_another_configuration_names_the_difference(tmp_path):
    RunStore.open(tmp_path, CONFIG).close()
    with pytest.raises(RunStoreError, match="differs in policy;") as caught:
        RunStore.open(tmp_path, {**CONFIG, "policy": "other"}, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("torn_bytes", [1, 30, 200_000])
def test_a_line_torn_by_a_kill_is_dropped_and_said(tmp_path, caplog, torn_bytes):
    with RunStore.open(tmp_path, CONFIG) as store:
        store.append(trajectory("a"))
    path = tmp_path / "trajectories.jsonl"
    whole = path.read_bytes()
    torn = trajectory("b", text="x" * 300_000).model_dump_json().encode()[:torn_bytes]
    path.write_bytes(whole + torn)
    assert ids(tmp_path) == ["a"]
    assert "torn" in caplog.text
    with RunStore.open(tmp_path, CONFIG, resume=True) as store:
        assert "b" not in store
        assert path.read_bytes() == whole
        store.append(trajectory("b"))
    assert ids(tmp_path) == ["a", "b"]


def test_a_file_that_is_one_torn_line_is_emptied(tmp_path):
    RunStore.open(tmp_path, CONFIG).close()
    (tmp_path / "trajectories.jsonl").write_bytes(b'{"sch')
    with RunStore.open(tmp_path, CONFIG, resume=True) as store:
        store.append(trajectory("a"))
    assert ids(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"schema_version": 99}', "{}", '{"schema_version": 1}']
)
def test_a_line_that_is_no_trajectory_names_its_place(tmp_path, line):
    with RunStore.open(tmp_path, CONFIG) as store:
        store.append(trajectory("a"))
    with (tmp_path / "trajectories.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunStoreError, match=r"trajectories\.jsonl:2: "):
        ids(tmp_path)


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(RunStoreError, match=r"found no manifest\.json"):
        ids(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema_version": 0}')
    with pytest.raises(RunStoreError, match="expected schema 1, found 0"):
        RunStore.open(tmp_path, CONFIG, resume=True)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(RunStoreError, match="expected a run manifest"):
        RunStore.open(tmp_path, CONFIG, resume=True)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStoreError, match="cannot be written"):
        RunStore.open(tmp_path / "file" / "run", CONFIG)


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    store = RunStore.open(tmp_path, CONFIG)
    store.append(trajectory("a"))
    real = os.write

    def full(fd: int, content: bytes) -> int:
        return real(fd, content[:10])

    monkeypatch.setattr(store_module.os, "write", full)
    with pytest.raises(RunStoreError, match="is the disk full"):
        store.append(trajectory("b"))
    monkeypatch.undo()
    assert "b" not in store
    assert ids(tmp_path) == ["a"]
    store.append(trajectory("b"))
    assert ids(tmp_path) == ["a", "b"]


def _append_many(folder: str, name: str) -> None:
    from pathlib import Path

    with RunStore.open(Path(folder), CONFIG, resume=True) as store:
        for n in range(20):
            store.append(trajectory(f"{name}-{n}", text=name * 5000))


def test_threads_and_processes_append_whole_lines(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_append_many, args=(str(tmp_path), f"p{n}")) for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with RunStore.open(tmp_path, CONFIG, resume=True) as store:
        threads = [
            threading.Thread(target=lambda n=n: store.append(trajectory(f"t-{n}")))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 80
    lines = (tmp_path / "trajectories.jsonl").read_text().splitlines()
    assert len({json.loads(line)["trajectory_id"] for line in lines}) == 80
