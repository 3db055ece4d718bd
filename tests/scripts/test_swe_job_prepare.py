"""What the first job asks of the trainer: which model, which pairs, and which stages it reuses."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from contextrl.envs.task_splits import BuildManifest, TaskSplits
from contextrl.envs.tasks import write_tasks
from contextrl.envs.types import Task, TaskSource
from contextrl.scripts import job_policy, swe_job
from contextrl.scripts.job_pairs import HELD_OUT, TRAIN
from contextrl.scripts.job_tasks import JobTasks
from contextrl.scripts.run_folder import load_run
from contextrl.scripts.stages import Cache, Stages, digest
from contextrl.scripts.swe_job import prepare
from contextrl.verl_ext.compose import compose
from contextrl.verl_ext.pair_source import measured_pairs, training_pairs
from contextrl.verl_ext.settings import CAConfig, JobConfig, TaskConfig, WarmupConfig
from contextrl.verl_ext.tiny import build_model, save, train_tokenizer


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """`prepared(overrides, own=False)` is the trainer's configuration, seen from another folder.

    As a GPU preset has it: a real model, files of tasks. `own` gives the tasks a package, whose
    episodes are mined for pairs.
    """
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer(["A or B? def f(x): return x"], 400)
    model = build_model(
        WarmupConfig(hidden_size=32, layers=1), tokenizer, max_context_tokens=64, seed=0
    )
    save(model, tokenizer, tmp_path / "model")
    task = Task(
        task_id="t",
        source=TaskSource.MUTATION,
        repo="o/r",
        base_commit="c",
        problem="f is wrong",
        image="i",
        gold_patch="",
        fail_to_pass=("t.py::test_f",),
    )
    write_tasks(tmp_path / "tasks.jsonl", [task])

    def run(overrides, *, own=False):
        config = compose(
            [
                f"actor_rollout_ref.model.path={tmp_path / 'model'}",
                *("job.prompts=compact", "data.train_batch_size=1"),
                *overrides,
            ]
        )
        tasks = JobTasks(
            train=tmp_path / "tasks.jsonl",
            validate={"v": tmp_path / "tasks.jsonl"},
            config=TaskConfig(),
            splits=_splits(tmp_path) if own else None,
        )
        run_dir = tmp_path / "run"
        run_dir.mkdir()
        job, ca = JobConfig.from_mapping(config.job), CAConfig.from_mapping(config.ca)
        stages = Stages(Console(stderr=True))
        prepare(config, run_dir, job, ca, tasks, Cache(tmp_path / "cache"), stages)
        monkeypatch.chdir(run_dir)
        return load_run(run_dir)

    return run


def _splits(folder):
    return TaskSplits(
        folder=folder,
        manifest=BuildManifest.model_construct(),
        train=(),
        heldout_functions=(),
        heldout_mutants=(),
        extra=(),
    )


def write_released(path, n):
    rows = [{"prompt": f"A or B? {k}", "correct_answer": "AB"[k % 2]} for k in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_pairs_that_were_brought_are_found_from_any_folder_and_some_are_held_out(
    prepared, tmp_path
):
    write_released(tmp_path / "pairs.released.jsonl", 20)
    stored = prepared(
        ["ca.pairs=pairs.released.jsonl", "ca.n_held_out=3", "job.sandbox.repos=clones"]
    )
    assert JobConfig.from_mapping(stored.job).sandbox.repos_folder == tmp_path / "clones"
    trained_with = CAConfig.from_mapping(stored.ca)
    assert (len(training_pairs(trained_with)), len(measured_pairs(trained_with))) == (17, 3)


@pytest.mark.parametrize(("brought", "measured"), [(True, 5), (False, 2)])
def test_own_pairs_train_and_those_that_were_brought_are_measured(
    prepared, tmp_path, monkeypatch, brought, measured
):
    mined = tmp_path / "mined"
    mined.mkdir()
    write_released(tmp_path / "mine.jsonl", 5)
    write_released(mined / f"{TRAIN}.jsonl", 4)
    write_released(mined / f"{HELD_OUT}.jsonl", 2)
    for split in (TRAIN, HELD_OUT):  # in place of folders of pairs
        monkeypatch.setattr(swe_job, split.upper().replace("-", "_"), f"{split}.jsonl")
    monkeypatch.setattr(swe_job, "mine_own_pairs", lambda *_: (mined, False))
    stored = prepared(["ca.held_out=mine.jsonl"] if brought else [], own=True)
    trained_with = CAConfig.from_mapping(stored.ca)
    assert (len(training_pairs(trained_with)), len(measured_pairs(trained_with))) == (4, measured)


def test_a_policy_warmed_up_for_other_letters_is_another_policy(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    tasks = JobTasks(train=tmp_path, validate={}, config=TaskConfig(), splits=_splits(tmp_path))
    cache = SimpleNamespace(folder=lambda name, inputs, make: (digest(inputs), False))

    def policy(**changes):
        ca = dataclasses.replace(CAConfig(), **changes)
        return job_policy.warm_policy(JobConfig(), ca, tasks, cache, lambda *_: None)[0]

    assert policy() == policy(lam=0.5), "the loss's weight is no part of the warm-up"
    assert len({policy(), policy(prefill="<answer>"), policy(style="other")}) == 3
