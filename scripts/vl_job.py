"""The second job, called by `run_vl_contextrl.sh`.

scenes -> policy -> open -> data -> training -> report.

The same stages, trainer, loss, sampler and probe as the main job; only what is asked differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from contextrl.pairs.hub import settled
from contextrl.pairs.render import option_token_ids
from contextrl.scripts import vl_report
from contextrl.scripts.job_checks import check_engine, settle_steps
from contextrl.scripts.job_train import read_metrics, summary_line, train
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
from contextrl.scripts.vl_data import TRAIN, Asked, choose_rows, write_rows
from contextrl.scripts.vl_open import choose_open_questions
from contextrl.scripts.vl_policy import measured_line, warm_vl_policy
from contextrl.scripts.vl_scenes import known_and_unseen, prepare_scenes
from contextrl.verl_ext.compose import CONFIG_DIR, compose
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_set import PairSet
from contextrl.verl_ext.pair_source import measured_pairs
from contextrl.verl_ext.probing import PairProbe
from contextrl.verl_ext.scorer_hf import load_tokenizer
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.settings_papo import PAPOConfig

MODEL = "actor_rollout_ref.model.path"


def run(overrides: Sequence[str], resume: Path | None, stages: Stages) -> Path:
    """The whole job; the run folder it ends in."""
    overrides = [*overrides]
    if not any(each.startswith("preset=") for each in overrides):
        overrides.append("preset=tiny-vl-cpu")
    config = load_run(resume) if resume else compose(overrides)
    check_engine(config, CAConfig.from_mapping(config.ca))
    run_dir = resume or new_run_dir(config, "vl")
    job = JobConfig.from_mapping(config.job)
    papo = PAPOConfig.from_mapping(config.get("papo"))
    stages.say(f"run folder {run_dir}")
    if not (run_dir / CONFIG).exists():
        prepare(config, run_dir, job, stages)
    ca = CAConfig.from_mapping(config.ca)
    terms = f"GRPO + {ca.lam:g} x CA" + (f" + {papo.coef:g} x PAPO" if papo.active else "")
    with stages.stage("train", f"{terms} through veRL, log in {run_dir}/train.log"):
        total = config.trainer.total_training_steps
        train(
            run_dir,
            cpu=not job.needs_gpu,
            on_metrics=lambda line: stages.say(summary_line(line, total)),
        )
    with stages.stage("report", "before against after"):
        report(config, run_dir, job, stages)
    return run_dir


def prepare(config: DictConfig, run_dir: Path, job: JobConfig, stages: Stages) -> None:
    """Scenes, policy and rows; then `config.yaml` holds all that the trainer needs."""
    cache = Cache(Path(job.cache_dir or ".cache/contextrl").absolute())
    ca, vl = CAConfig.from_mapping(config.ca), job.vl
    train_file, validate = vl.train, dict(vl.validate)
    pairs, held_out = ca.pairs and settled(ca.pairs), ca.held_out and settled(ca.held_out)
    drawn = chosen = None
    if train_file is None:
        with stages.stage("scenes", "questions and pairs drawn by program"):
            drawn, cached = prepare_scenes(vl.scenes, cache, stages.progress)
            stages.say(f"{drawn.folder}{' (cached)' if cached else ''}")
        train_file = str(drawn.train)
        validate = {name: str(file) for name, file in drawn.validate.items()}
        pairs, held_out = pairs or str(drawn.pairs), held_out or str(drawn.probe)
    if not is_given(config, MODEL):
        if drawn is None:
            raise ConfigError(
                f"expected {MODEL} to name the model that learns from job.vl.train, found none"
            )
        with stages.stage("policy", "a tiny vision model, warmed up on questions about images"):
            model, cached = warm_vl_policy(vl, ca, drawn, cache, stages.progress)
            stages.say(f"{model}{' (cached)' if cached else ''}")
            stages.say(measured_line(model))
        with stages.stage("open", "questions that the policy answers right now and then"):
            chosen = choose_open_questions(vl, ca, drawn, model, cache, stages.progress)
            stages.say(f"{chosen.open_frac:.0%} of {vl.scenes.n_train} candidates are open")
        with open_dict(config):
            config.actor_rollout_ref.model.path = str(model)
    with open_dict(config):
        model_path = str(config.actor_rollout_ref.model.path).rstrip("/")
        config.actor_rollout_ref.model.path = model_path
        config.job.run_dir = str(run_dir)
        config.ca.pairs, config.ca.held_out = pairs, held_out
        agent = config.actor_rollout_ref.rollout.agent
        agent.agent_loop_config_path = str(CONFIG_DIR / "agent_loop.yaml")
        config.trainer.default_local_dir = str(run_dir / "checkpoints")
        config.trainer.experiment_name = run_dir.name
    with stages.stage("data", "rows, checked against the model"):
        asked, measured = choose_rows(train_file, validate, vl.validate_limit)
        if chosen is not None:
            asked = Asked(asked.source, chosen.numbers)
        check_and_write(config, run_dir, job, asked, measured, stages)
    OmegaConf.resolve(config)
    save_whole(config, run_dir / CONFIG)


def check_and_write(
    config: DictConfig,
    run_dir: Path,
    job: JobConfig,
    asked: Asked,
    measured: dict[str, Asked],
    stages: Stages,
) -> None:
    """veRL's two files, after a look at what would stop a training."""
    ca = CAConfig.from_mapping(config.ca)
    tokenizer = load_tokenizer(
        config.actor_rollout_ref.model.path, min_pixels=ca.min_pixels, max_pixels=ca.max_pixels
    )
    option_token_ids(tokenizer, ca.prefill or "")
    if ca.pairs is not None:
        stages.say(f"{len(PairSet.load(ca, tokenizer))} pairs for the CA loss")
    if (pairs := measured_pairs(ca)) is not None:
        stages.say(f"{len(PairProbe(ca, pairs, tokenizer))} pairs to measure selection on")
    data = run_dir / "data"
    for name, splits in ((TRAIN, {TRAIN: asked}), ("validate", measured)):
        left_out = write_rows(
            data / f"{name}.parquet",
            splits,
            phase=name,
            tokenizer=tokenizer,
            vl=job.vl,
            max_prompt_tokens=config.data.max_prompt_length,
        )
        counts = ", ".join(f"{split} {len(rows.numbers)}" for split, rows in splits.items())
        stages.say(f"{name}: {counts}" + (f", {left_out} left out" if left_out else ""))
        if name == TRAIN and (fewer := settle_steps(config, len(asked.numbers) - left_out)):
            stages.say(fewer)
    with open_dict(config):
        config.data.train_files = [str(data / f"{TRAIN}.parquet")]
        config.data.val_files = [str(data / "validate.parquet")]


def report(config: DictConfig, run_dir: Path, job: JobConfig, stages: Stages) -> None:
    metrics = read_metrics(run_dir)
    summary = vl_report.summarise(
        run_dir,
        families=known_and_unseen(job.vl.scenes) if job.vl.train is None else ((), ()),
        metrics=metrics,
        stage_seconds=stages.seconds,
        checkpoint=str(last_checkpoint(run_dir)),
        config=container(config),
    )
    vl_report.write_summary(summary, run_dir)
    vl_report.plot(summary, metrics, run_dir / vl_report.PLOT)
    for line in vl_report.lines(summary):
        stages.say(line)


def main(argv: Sequence[str] | None = None) -> int:
    return job_main(
        "run_vl_contextrl.sh",
        "Train a vision model on image questions with GRPO and the context-aware loss.",
        "Overrides are Hydra's: preset=qwen2.5-vl-7b, ca.lam=0, trainer.total_training_steps=4.",
        run,
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
