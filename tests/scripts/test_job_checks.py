"""Bad input stops the job with one line, before minutes are spent on it."""

import dataclasses

import pytest

from contextrl.envs.types import Task, TaskSource
from contextrl.pairs.errors import OptionTokenError, PairFileError
from contextrl.scripts.job_checks import check_engine, check_inputs, settle_steps
from contextrl.verl_ext.compose import compose, presets
from contextrl.verl_ext.errors import ConfigError, ModelError
from contextrl.verl_ext.settings import CAConfig, JobConfig, WarmupConfig
from contextrl.verl_ext.tiny import build_model, save, train_tokenizer

TASK = Task(
    task_id="t",
    source=TaskSource.MUTATION,
    repo="o/r",
    base_commit="c",
    problem="f is wrong",
    image="i",
    gold_patch="",
    fail_to_pass=("t.py::test_f",),
)
JOB = JobConfig(prompts="compact")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["A or B? def f(x): return x"], 400)
    config = WarmupConfig(hidden_size=32, layers=1)
    save(build_model(config, tokenizer, max_context_tokens=64, seed=0), tokenizer, folder)
    return folder


def test_good_input_passes(model):
    check_inputs(str(model), JOB, CAConfig(), [[TASK]])


@pytest.mark.parametrize("preset", presets())
def test_every_preset_passes_the_engines_checks(preset):
    config = compose([f"preset={preset}"])
    check_engine(config, CAConfig.from_mapping(config.ca))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.nnodes=x", "trainer.nnodes to be a whole number from 1 on, found 'x'"),
        ("trainer.nnodes=4", "multiple of data-parallel ranks"),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=32", "found 4 x 32; change"),
        ("actor_rollout_ref.actor.ulysses_sequence_parallel_size=2", "set it to 1"),
        ("actor_rollout_ref.model.use_fused_kernels=true", "fused kernels bypass"),
        (
            "++actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp16",
            "bf16 or fp32, found fp16",
        ),
    ],
)
def test_what_the_engine_would_refuse_after_the_first_rollout(override, message):
    config = compose(["preset=qwen3-8b", override])
    with pytest.raises(ConfigError, match=message):
        check_engine(config, CAConfig.from_mapping(config.ca))


@pytest.mark.parametrize(
    ("overrides", "n_rows", "steps", "said"),
    [
        (["trainer.total_training_steps=16"], 20, 16, None),
        (["trainer.total_epochs=3"], 20, 6, "6 steps instead of 10: trainer.total_epochs = 3"),
        (["trainer.total_training_steps=null", "trainer.total_epochs=3"], 25, 9, None),
        (["trainer.total_training_steps=2"], 8, 2, None),
    ],
)
def test_the_last_step_is_one_that_is_saved_and_measured(overrides, n_rows, steps, said):
    config = compose(["preset=tiny-cpu", *overrides])
    found = settle_steps(config, n_rows)
    assert config.trainer.total_training_steps == config.trainer.test_freq == steps
    assert found is None if said is None else said in found


def test_fewer_rows_than_a_batch_are_refused_before_the_first_validation():
    with pytest.raises(ConfigError, match="train_batch_size = 8 rows to train on, found 7"):
        settle_steps(compose(["preset=tiny-cpu"]), 7)


def test_sampling_that_the_cpu_server_does_not_do_is_refused_before_it_starts():
    for key in ("top_p=0.9", "val_kwargs.top_k=20"):
        config = compose(["preset=tiny-cpu", f"actor_rollout_ref.rollout.{key}"])
        with pytest.raises(ConfigError, match=f"found {key.partition('=')[2]}; leave it out"):
            check_engine(config, CAConfig.from_mapping(config.ca))
    config = compose(["preset=qwen3-8b", "actor_rollout_ref.rollout.top_p=0.9"])
    check_engine(config, CAConfig.from_mapping(config.ca))


def test_plain_grpo_may_use_what_the_ca_pass_cannot():
    override = "actor_rollout_ref.model.use_fused_kernels=true"
    config = compose(["preset=qwen3-8b", "ca.pairs=null", override])
    check_engine(config, CAConfig.from_mapping(config.ca))


def test_a_model_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelError, match="expected a tokenizer in"):
        check_inputs(str(tmp_path), JOB, CAConfig(), [[TASK]])


def test_a_pair_file_with_neither_letter(model, tmp_path):
    pairs = tmp_path / "pairs.jsonl.txt"
    pairs.write_text('{"prompt": "A or B?", "correct_answer": "C"}\n')
    with pytest.raises(PairFileError, match="expected 'A' or 'B'"):
        check_inputs(str(model), JOB, CAConfig(pairs=str(pairs)), [[TASK]])


def test_a_letter_that_is_two_tokens(model, tmp_path):
    pairs = tmp_path / "pairs.jsonl.txt"
    pairs.write_text('{"prompt": "A or B?", "correct_answer": "A"}\n')
    config = CAConfig(pairs=str(pairs), prefill="The option is:")  # then " B" is asked for
    with pytest.raises(OptionTokenError, match="to be one known token"):
        check_inputs(str(model), JOB, config, [[TASK]])


def test_a_prompt_longer_than_the_context(model):
    limits = dataclasses.replace(JOB.limits, max_context_tokens=4)
    job = dataclasses.replace(JOB, limits=limits)
    with pytest.raises(
        ConfigError, match="task t: expected a prompt shorter than the context of 4"
    ):
        check_inputs(str(model), job, CAConfig(), [[TASK]])
