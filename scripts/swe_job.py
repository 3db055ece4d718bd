"""The main job: tasks -> policy -> pairs -> training -> report. `run_swe_contextrl.sh` calls it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from contextrl.envs.cleanup import run_label
from contextrl.envs.places import end_run, without_engine
from contextrl.pairs.hub import settled
from contextrl.scripts import job_report
from contextrl.scripts.job_checks import check_engine, check_inputs, settle_steps
from contextrl.scripts.job_open_tasks import choose_open_tasks
from contextrl.scripts.job_pairs import HELD_OUT, TRAIN, mine_own_pairs
from contextrl.scripts.job_policy import warm_policy
from contextrl.scripts.job_tasks import TRAIN as TRAIN_SPLIT
from contextrl.scripts.job_tasks import JobTasks, prepare_tasks
from contextrl.scripts.job_train import read_metrics, summary_line, train, write_dataset
from contextrl.scripts.run_folder import (
    CONFIG,
    container,
    is_given,
    job_main,
    last_checkpoint,
    load_run,
    new_run_dir,
    save_whole,
)
from contextrl.scripts.stages import Cache, Stages
from contextrl.verl_ext.compose import CONFIG_DIR, compose
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.settings_papo import PAPOConfig


def run(overrides: Sequence[str], resume: Path | None, stages: Stages) -> Path:
    """The whole job; the run folder it ends in."""
    config = load_run(resume) if resume else compose(overrides)
    PAPOConfig.from_mapping(config.get("papo")).require_images(sees=False)
    check_engine(config, CAConfig.from_mapping(config.ca))
    run_dir = resume or new_run_dir(config)
    prepared = (run_dir / CONFIG).exists()
    job, ca = JobConfig.from_mapping(config.job), CAConfig.from_mapping(config.ca)
    cache = Cache(Path(job.cache_dir or ".cache/contextrl").absolute())
    stages.say(f"run folder {run_dir}")
    if not job.sandbox.deployment and (line := without_engine(job.sandbox.roots_folder)):
        stages.say(line)
    try:
        with stages.stage("tasks", "issues with tests that decide them"):
            tasks = prepare_tasks(job.tasks, cache.root, stages.progress, job.sandbox.roots_folder)
            stages.say(describe_tasks(tasks))
        if not prepared:
            prepare(config, run_dir, job, ca, tasks, cache, stages)
        tasks = dataclasses.replace(tasks, train=Path(config.job.tasks.train))
        with stages.stage(
            "train", f"GRPO + {ca.lam:g} x CA through veRL, log in {run_dir}/train.log"
        ):
            total = config.trainer.total_training_steps
            train(
                run_dir,
                cpu=not job.needs_gpu,
                on_metrics=lambda line: stages.say(summary_line(line, total)),
            )
    finally:
        left = end_run(run_label(run_dir))
        if left:
            stages.say(f"removed {len(left)} sandboxes that the training left running")
    with stages.stage("report", "before against after"):
        report(config, run_dir, job, tasks, stages)
    return run_dir


def prepare(
    config: DictConfig,
    run_dir: Path,
    job: JobConfig,
    ca: CAConfig,
    tasks: JobTasks,
    cache: Cache,
    stages: Stages,
) -> None:
    """Policy, pairs and datasets; then `config.yaml` holds all that the trainer needs."""
    with open_dict(config):
        config.job.run_dir = str(run_dir)
        config.job.tasks.train = str(tasks.train)
        config.job.tasks.validate = {name: str(file) for name, file in tasks.validate.items()}
        agent = config.actor_rollout_ref.rollout.agent
        agent.agent_loop_config_path = str(CONFIG_DIR / "agent_loop.yaml")
        config.trainer.default_local_dir = str(run_dir / "checkpoints")
        config.trainer.experiment_name = run_dir.name
        for name in ("deployment", "repos", "roots"):
            # For processes with other working directories.
            if given := config.job.sandbox[name]:
                config.job.sandbox[name] = str(Path(given).expanduser().absolute())
        # veRL stops at a path that ends with a slash, as a shell completes it.
        model = config.actor_rollout_ref.model
        model.path = str(model.path).rstrip("/")
    if tasks.splits is not None and not is_given(config, "actor_rollout_ref.model.path"):
        with stages.stage("policy", "a tiny policy, warmed up on scripted runs"):
            model, cached = warm_policy(job, ca, tasks, cache, stages.progress)
            stages.say(f"{model}{' (cached)' if cached else ''}")
        with open_dict(config):
            config.actor_rollout_ref.model.path = str(model)
        if job.tasks.candidates is not None:
            with stages.stage("open", "training tasks that the policy solves sometimes"):
                chosen, cached = choose_open_tasks(job, model, tasks, cache, stages.progress)
                stages.say(f"{chosen}{' (cached)' if cached else ''}")
            tasks = dataclasses.replace(tasks, train=chosen)
            with open_dict(config):
                config.job.tasks.train = str(chosen)
    if ca.pairs is None and tasks.splits is not None:
        with stages.stage("pairs", "the policy's own episodes, mined for contrastive pairs"):
            model = Path(config.actor_rollout_ref.model.path)
            pairs, cached = mine_own_pairs(job, model, tasks, cache, stages.progress)
            stages.say(f"{pairs}{' (cached)' if cached else ''}")
        with open_dict(config):
            config.ca.pairs = str(pairs / TRAIN)
            config.ca.held_out = settled(ca.held_out) if ca.held_out else str(pairs / HELD_OUT)
    else:
        with open_dict(config):
            config.ca.pairs = ca.pairs and settled(ca.pairs)
            config.ca.held_out = ca.held_out and settled(ca.held_out)
    data = run_dir / "data"
    train_tasks, validate_tasks = {TRAIN_SPLIT: tasks.training()}, tasks.validation()
    check_inputs(
        config.actor_rollout_ref.model.path,
        job,
        CAConfig.from_mapping(config.ca),
        [*train_tasks.values(), *validate_tasks.values()],
    )
    write_dataset(data / "train.parquet", train_tasks, job.prompts, phase="train")
    write_dataset(data / "validate.parquet", validate_tasks, job.prompts, phase="validate")
    if fewer := settle_steps(config, len(train_tasks[TRAIN_SPLIT])):
        stages.say(fewer)
    with open_dict(config):
        config.data.train_files = [str(data / "train.parquet")]
        config.data.val_files = [str(data / "validate.parquet")]
    OmegaConf.resolve(config)
    save_whole(config, run_dir / CONFIG)


def report(
    config: DictConfig, run_dir: Path, job: JobConfig, tasks: JobTasks, stages: Stages
) -> None:
    metrics = read_metrics(run_dir)
    summary = job_report.summarise(
        run_dir,
        tasks=tasks.validation(),
        metrics=metrics,
        stage_seconds=stages.seconds,
        checkpoint=str(last_checkpoint(run_dir)),
        config=container(config),
    )
    job_report.write_summary(summary, run_dir)
    job_report.plot(metrics, run_dir / job_report.PLOT)
    for line in job_report.lines(summary):
        stages.say(line)


def describe_tasks(tasks: JobTasks) -> str:
    counts = {name: len(of_split) for name, of_split in tasks.validation().items()}
    measured = ", ".join(f"{name} {count}" for name, count in counts.items())
    candidates = f" of {n} candidates" if (n := tasks.config.candidates) else ""
    n_train = len(tasks.training())
    return f"{n_train}{candidates} to train on; measured before and after: {measured}"


def main(argv: Sequence[str] | None = None) -> int:
    return job_main(
        "run_swe_contextrl.sh",
        "Train a coding agent with GRPO and the context-aware loss.",
        "Overrides are Hydra's: preset=qwen3-8b, ca.lam=0, trainer.total_training_steps=4.",
        run,
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
