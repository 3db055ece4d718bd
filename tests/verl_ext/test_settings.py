import dataclasses
from functools import cache
from pathlib import Path

import pytest

from contextrl.verl_ext.compose import compose, needs_gpu, presets
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import CAConfig, JobConfig, Reuse


@cache
def composed(preset):
    """Read by several tests, written by none: composing takes most of a second."""
    return compose([f"preset={preset}"])


@pytest.mark.parametrize("preset", presets())
def test_every_preset_composes_and_its_blocks_parse(preset):
    config = composed(preset)
    CAConfig.from_mapping(config.ca)
    JobConfig.from_mapping(config.job)
    assert config.trainer.v1.trainer_mode == "contextrl_sync"


def test_the_base_file_states_every_field_of_our_blocks():
    config = compose([])
    assert set(config.ca) == {field.name for field in dataclasses.fields(CAConfig)}
    assert set(config.job) == {field.name for field in dataclasses.fields(JobConfig)}


def test_one_seed_moves_all_that_a_repetition_draws_and_nothing_that_it_measures():
    config = compose(["job.seed=7"])
    job, ca = JobConfig.from_mapping(config.job), CAConfig.from_mapping(config.ca)
    drawn = [ca.seed, job.warmup.seed, job.mining.seed, job.vl.tiny.seed, job.vl.warmup.seed]
    drawn += [config.data.seed, config.actor_rollout_ref.rollout.seed]
    assert drawn == [7] * len(drawn)
    assert (job.tasks.seed, job.vl.scenes.seed) == (0, 0)


def test_release_values_of_the_agentic_presets():
    qwen, klear = composed("qwen3-8b"), composed("klear-8b")
    assert (qwen.job.prompts, klear.job.prompts) == ("swe", "swe-plus")
    assert (qwen.ca.lam, klear.ca.lam) == (0.001, 0.01)
    assert (qwen.ca.prefill, klear.ca.prefill) == ("", "The correct option is")
    assert (qwen.trainer.total_epochs, klear.trainer.total_epochs) == (3, 2)
    for config in (qwen, klear):
        actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
        assert (config.data.train_batch_size, actor.ppo_mini_batch_size, rollout.n) == (16, 8, 8)
        assert (actor.optim.lr, actor.kl_loss_coef) == (2e-6, 5e-4)
        assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 10)
        assert (config.ca.clip, config.ca.pairs_per_step) == (5.0, 8)
        assert config.job.limits.max_turns == 35
        assert config.ca.pairs == "hf://xupy21/ContextRL_Agentic/*.jsonl"


def test_release_values_of_the_multimodal_presets():
    qwen25, qwen3 = composed("qwen2.5-vl-7b"), composed("qwen3-vl-8b")
    assert (qwen25.ca.lam, qwen3.ca.lam) == (0.005, 0.001)
    assert (qwen25.job.vl.reply_prefix, qwen3.job.vl.reply_prefix) == ("", "<think>\n")
    for config in (qwen25, qwen3):
        actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
        assert (config.data.train_batch_size, actor.ppo_mini_batch_size, rollout.n) == (256, 64, 8)
        assert (actor.optim.lr, actor.optim.weight_decay, actor.kl_loss_coef) == (1e-6, 1e-2, 1e-2)
        assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.3, 3)
        assert (config.data.max_prompt_length, config.data.max_response_length) == (16384, 4096)
        assert (config.ca.clip, config.ca.pairs_per_step, config.ca.reuse) == (5, 32, "per-rollout")
        assert (config.ca.min_pixels, config.ca.max_pixels) == (784, 1003520)
        assert config.data.mm_processor_kwargs == {"min_pixels": 784, "max_pixels": 1003520}
        assert config.actor_rollout_ref.model.override_config.freeze_vision_tower
        assert config.trainer.total_epochs == 3
        assert config.ca.pairs == config.job.vl.train


@pytest.mark.parametrize("preset", presets())
def test_no_preset_asks_for_a_package_that_set_up_does_not_install(preset):
    """veRL's own default is `flash_attention_2`, and its packed Qwen2.5-VL needs flash-attn too."""
    model = composed(preset).actor_rollout_ref.model
    pinned = Path(__file__).parents[2] / "requirements/constraints-gpu.txt"
    assert "\nflash-attn==" not in pinned.read_text(encoding="utf-8")
    assert model.override_config.attn_implementation == "sdpa"
    assert not (model.use_remove_padding and "Qwen2.5-VL" in str(model.path))


def test_only_the_cpu_presets_run_without_a_gpu():
    without = ["tiny-cpu", "tiny-vl-cpu", "tiny-vl3-cpu"]
    assert [preset for preset in presets() if not needs_gpu(preset)] == without


def test_splits_have_names_of_ones_own():
    named = ["job.tasks.validate={mine: held.jsonl}", "job.tasks.validate_limits.mine=7"]
    config = compose(["preset=qwen3-8b", *named])
    job = JobConfig.from_mapping(config.job)
    assert job.tasks.validate == {"mine": "held.jsonl"}
    assert job.tasks.validate_limits == {"mine": 7}
    config = compose(["preset=tiny-cpu", "job.tasks.validate_limits.heldout_functions=2"])
    assert config.job.tasks.validate_limits == {"heldout_functions": 2}
    config = compose(["preset=qwen2.5-vl-7b", "job.vl.validate.mine=held.parquet"])
    assert config.job.vl.validate.mine == "held.parquet"


def test_an_unknown_override_is_named():
    with pytest.raises(ConfigError, match=r"ca\.lamda"):
        compose(["ca.lamda=1"])


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="tiny-cpu"):
        needs_gpu("qwen-9000b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lam": -1}, "ca.lam must be >= 0"),
        ({"clip": 0}, "ca.clip must be > 0"),
        ({"lamda": 1}, "unknown key ca.lamda"),
        ({"reuse": "sometimes"}, r"ca.reuse must be one of \['fresh', 'per-rollout'\]"),
        ({"pairs_per_step": "many"}, "ca.pairs_per_step must be int, got 'many'"),
        ({"pairs_per_step": True}, "ca.pairs_per_step must be int, got True"),
        ({"pairs": 3}, "ca.pairs must be null or str, got 3"),
        ({"max_pixels": 100}, "ca.max_pixels must be >= ca.min_pixels 784, got 100"),
    ],
)
def test_wrong_values_are_named_with_what_was_expected(values, message):
    with pytest.raises(ConfigError, match=message):
        CAConfig.from_mapping(values)


def test_numbers_as_yaml_reads_them():
    assert CAConfig.from_mapping({"lam": "5e-4", "clip": 5, "reuse": "per-rollout"}) == CAConfig(
        lam=5e-4, clip=5.0, reuse=Reuse.PER_ROLLOUT
    )


def test_errors_in_nested_blocks_carry_their_whole_name():
    with pytest.raises(ConfigError, match=r"unknown key job\.limits\.max_turn;"):
        JobConfig.from_mapping({"limits": {"max_turn": 3}})
    with pytest.raises(ConfigError, match=r"limits\.max_turns must be positive"):
        JobConfig.from_mapping({"limits": {"max_turns": 0}})


def test_pairs_that_do_not_split_over_the_ranks_are_refused():
    config = CAConfig(pairs_per_step=8, micro_batch_size=2)
    config.check_ranks(4)
    with pytest.raises(ConfigError, match="multiple of data-parallel ranks x"):
        config.check_ranks(3)
