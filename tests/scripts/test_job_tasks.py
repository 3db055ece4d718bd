"""Which tasks a run trains on, which it shows the policy beforehand, and which it measures."""

import dataclasses
from collections import Counter

import pytest

from contextrl.envs.task_splits import SPLIT_FILES, BuildManifest, TaskSplits
from contextrl.envs.tasks import read_tasks, write_tasks
from contextrl.envs.types import Task, TaskSource
from contextrl.scripts.job_open_tasks import open_first
from contextrl.scripts.job_tasks import JobTasks, local_file, prepare_tasks
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import TaskConfig


def task(name):
    return Task(
        task_id=name,
        source=TaskSource.MUTATION,
        repo="o/r",
        base_commit="c",
        problem="f is wrong",
        image="i",
        gold_patch="",
        fail_to_pass=("t.py::test_f",),
    )


@pytest.fixture
def job_tasks(tmp_path):
    train, held_out = [task(f"train-{n}") for n in range(6)], [task(f"held-{n}") for n in range(4)]
    for split, tasks in {"train": train, "heldout_mutants": held_out}.items():
        write_tasks(tmp_path / SPLIT_FILES[split], tasks)
    splits = TaskSplits(
        folder=tmp_path,
        manifest=BuildManifest.model_construct(),
        train=tuple(train),
        heldout_functions=(),
        heldout_mutants=tuple(held_out),
        extra=(task("extra-0"),),
    )
    return JobTasks(
        train=splits.path("train"),
        validate={"heldout_mutants": splits.path("heldout_mutants")},
        config=TaskConfig(train_limit=2, validate_limit=3, validate_train=True),
        splits=splits,
    )


def ids(tasks):
    return [task.task_id for task in tasks]


def test_rl_meets_no_task_that_was_demonstrated(job_tasks):
    assert ids(job_tasks.training()) == ["train-0", "train-1"]
    assert ids(job_tasks.demonstrated()) == ["train-2", "train-3", "train-4", "train-5"]


def test_no_candidate_is_demonstrated_either(job_tasks):
    config = dataclasses.replace(job_tasks.config, candidates=4)
    candidates = dataclasses.replace(job_tasks, config=config)
    assert ids(candidates.candidates()) == ["train-0", "train-1", "train-2", "train-3"]
    assert ids(candidates.demonstrated()) == ["train-4", "train-5"]
    with pytest.raises(ConfigError, match=r"candidates must be >= job.tasks.train_limit 2, got 1"):
        TaskConfig(train_limit=2, candidates=1)


def test_tasks_that_are_solved_sometimes_come_first_and_finished_ones_last():
    tasks = [task(name) for name in "abcde"]
    solved = Counter({"a": 4, "c": 1, "d": 3})
    assert ids(open_first(tasks, solved, samples=4)) == ["c", "d", "b", "e", "a"]


def test_measured_are_the_training_tasks_and_the_first_of_each_held_out_split(job_tasks):
    measured = job_tasks.validation()
    assert ids(measured["train"]) == ["train-0", "train-1"]
    assert ids(measured["heldout_mutants"]) == ["held-0", "held-1", "held-2"]


def test_a_split_may_have_its_own_limit(job_tasks):
    config = TaskConfig(validate_limit=3, validate_limits={"heldout_mutants": 1})
    measured = dataclasses.replace(job_tasks, config=config).validation()
    assert ids(measured["heldout_mutants"]) == ["held-0"]
    unknown = TaskConfig(validate_limits={"heldout_mutant": 1})
    with pytest.raises(ConfigError, match="heldout_mutant'"):
        dataclasses.replace(job_tasks, config=unknown).validation()


def test_without_a_limit_rl_trains_on_all_and_nothing_is_left_to_show(job_tasks):
    everything = dataclasses.replace(job_tasks, config=TaskConfig())
    assert len(everything.training()) == 6
    assert everything.demonstrated() == []
    assert set(everything.validation()) == {"heldout_mutants"}


def test_tasks_of_the_hub_are_one_file_or_a_data_set(tmp_path, monkeypatch):
    import huggingface_hub

    home = tmp_path / "someone/set"
    home.mkdir(parents=True)
    file = home / "train.jsonl"
    write_tasks(file, [task(f"t-{n}") for n in range(8)])
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: ["train.jsonl"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(file))
    assert local_file("hf://someone/set/*.jsonl", tmp_path / "cache") == file
    monkeypatch.chdir(tmp_path)  # `datasets` takes a folder of that name for the set
    written = local_file("hf://someone/set@train", tmp_path / "cache")
    assert read_tasks(written) == read_tasks(file)
    assert local_file("hf://someone/set", tmp_path / "cache") == written
    config = TaskConfig(train="hf://someone/set", validate_limit=2)
    prepared = prepare_tasks(config, tmp_path / "cache", lambda *_: None)
    assert len(prepared.training()) == 6
    with pytest.raises(ConfigError, match="expected a file nowhere, found none"):
        local_file("nowhere", tmp_path)
