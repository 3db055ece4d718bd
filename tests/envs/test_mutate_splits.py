"""Splits that do not leak into each other, and folders that are complete or absent."""

from __future__ import annotations

import json

import pytest

from contextrl.envs.errors import MutationError
from contextrl.envs.package_specs import TOOLZ, package_spec
from contextrl.envs.task_splits import (
    BuildManifest,
    SplitSizes,
    StageCount,
    divide,
    load_splits,
    save_splits,
)
from contextrl.envs.types import Task, TaskSource

SIZES = SplitSizes(train=60, heldout_functions=10, heldout_mutants=12, extra=0)
BUGS = {f"f{n}": [f"f{n}-{m}" for m in range(6)] for n in range(20)}


def functions(items):
    return {item.split("-")[0] for item in items}


def test_no_function_is_both_trained_and_held_out():
    division = divide(BUGS, SIZES, seed=0)
    assert not functions(division.heldout_functions) & functions(division.train)
    assert not functions(division.heldout_functions) & functions(division.heldout_mutants)
    assert functions(division.heldout_mutants) <= functions(division.train)


def test_no_bug_is_lost_or_used_twice():
    division = divide(BUGS, SIZES, seed=0)
    parts = [
        division.train,
        division.heldout_functions,
        division.heldout_mutants,
        division.surplus,
    ]
    every = [item for part in parts for item in part]
    assert sorted(every) == sorted(item for items in BUGS.values() for item in items)
    assert [len(part) for part in parts] == [60, 10, 12, 38]


def test_every_training_function_has_three_bugs_before_one_has_five():
    train = divide(BUGS, SIZES, seed=0).train
    counts = [sum(item.startswith(f"{name}-") for item in train) for name in functions(train)]
    assert min(counts) >= 3
    assert functions(train[:18]) == functions(train)


def test_the_seed_decides():
    assert divide(BUGS, SIZES, seed=0) == divide(BUGS, SIZES, seed=0)
    assert (
        divide(BUGS, SIZES, seed=0).heldout_functions
        != divide(BUGS, SIZES, seed=1).heldout_functions
    )


def task(number):
    return Task(
        task_id=f"p__f__compare-{number}",
        source=TaskSource.MUTATION,
        repo="o/p",
        base_commit="0" * 40,
        problem="f in m.py is wrong.",
        image="i:1",
        gold_patch="",
        fail_to_pass=("t.py::test_f",),
    )


MANIFEST = BuildManifest(
    key="k",
    package=TOOLZ,
    sizes=SIZES,
    seed=0,
    image="i:1",
    base_commit="0" * 40,
    stages=(StageCount(stage="bugs", seen=3, kept=2, dropped={"survived": 1}),),
    tasks={"train": 2},
    functions={"train": ("f",)},
)
TASKS = {
    "train": [task(1), task(2)],
    "heldout_functions": [task(3)],
    "heldout_mutants": [],
    "extra": [],
}


def test_what_is_saved_is_loaded_and_saved_again_in_the_same_bytes(tmp_path):
    save_splits(tmp_path / "a", MANIFEST, TASKS)
    save_splits(tmp_path / "b", MANIFEST, TASKS)
    loaded = load_splits(tmp_path / "a")
    assert loaded is not None
    assert loaded.train == (task(1), task(2))
    assert loaded.heldout_functions == (task(3),)
    assert loaded.path("train").read_bytes() == (tmp_path / "b" / "train.jsonl").read_bytes()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a", "b"]


@pytest.mark.parametrize("damage", ["manifest.json", "train.jsonl", "mutants_extra.jsonl"])
def test_a_folder_without_one_of_its_files_is_not_complete(tmp_path, damage):
    save_splits(tmp_path / "a", MANIFEST, TASKS)
    (tmp_path / "a" / damage).unlink()
    assert load_splits(tmp_path / "a") is None


def test_a_shortened_file_is_not_taken_for_whole(tmp_path, caplog):
    save_splits(tmp_path / "a", MANIFEST, TASKS)
    path = tmp_path / "a" / "train.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert load_splits(tmp_path / "a") is None
    assert "train.jsonl: its hash is not the one in manifest.json" in caplog.text


def test_a_failed_save_leaves_the_earlier_build(tmp_path):
    save_splits(tmp_path / "a", MANIFEST, TASKS)
    with pytest.raises(KeyError):
        save_splits(tmp_path / "a", MANIFEST, {"train": []})
    assert load_splits(tmp_path / "a") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_manifest_is_json_that_names_every_filter(tmp_path):
    save_splits(tmp_path / "a", MANIFEST, TASKS)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["stages"] == [
        {"stage": "bugs", "seen": 3, "kept": 2, "dropped": {"survived": 1}}
    ]


def test_an_unknown_package_names_those_there_are():
    with pytest.raises(MutationError, match="expected one of toolz, found 'nope'"):
        package_spec("nope")
