"""What the first job asks of the trainer, where pairs and model were brought."""

import json

from rich.console import Console

from contextrl.envs.tasks import write_tasks
from contextrl.envs.types import Task, TaskSource
from contextrl.scripts.job_tasks import JobTasks
from contextrl.scripts.run_folder import load_run
from contextrl.scripts.stages import Cache, Stages
from contextrl.scripts.swe_job import prepare
from contextrl.verl_ext.compose import compose
from contextrl.verl_ext.pair_source import measured_pairs, training_pairs
from contextrl.verl_ext.settings import CAConfig, JobConfig, TaskConfig, WarmupConfig
from contextrl.verl_ext.tiny import build_model, save, train_tokenizer


def test_pairs_that_were_brought_are_found_from_any_folder_and_some_are_held_out(
    tmp_path, monkeypatch
):
    """As a GPU preset has it: a real model, files of tasks, released pairs."""
    monkeypatch.chdir(tmp_path)
    tokenizer = train_tokenizer(["A or B? def f(x): return x"], 400)
    model = build_model(
        WarmupConfig(hidden_size=32, layers=1), tokenizer, max_context_tokens=64, seed=0
    )
    save(model, tokenizer, tmp_path / "model")
    rows = [{"prompt": f"A or B? {n}", "correct_answer": "AB"[n % 2]} for n in range(20)]
    (tmp_path / "pairs.released.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
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
    config = compose(
        [
            f"actor_rollout_ref.model.path={tmp_path / 'model'}",
            *("ca.pairs=pairs.released.jsonl", "ca.n_held_out=3", "job.prompts=compact"),
            "job.sandbox.repos=clones",
            "data.train_batch_size=1",
        ]
    )
    tasks = JobTasks(
        train=tmp_path / "tasks.jsonl",
        validate={"v": tmp_path / "tasks.jsonl"},
        config=TaskConfig(),
    )
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    job, ca = JobConfig.from_mapping(config.job), CAConfig.from_mapping(config.ca)
    stages = Stages(Console(stderr=True))
    prepare(config, run_dir, job, ca, tasks, Cache(tmp_path / "cache"), stages)

    monkeypatch.chdir(run_dir)
    stored = load_run(run_dir)
    assert JobConfig.from_mapping(stored.job).sandbox.repos_folder == tmp_path / "clones"
    trained_with = CAConfig.from_mapping(stored.ca)
    assert (len(training_pairs(trained_with)), len(measured_pairs(trained_with))) == (17, 3)
