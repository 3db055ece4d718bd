"""A run folder from its first second: what `--resume` finds there."""

import pytest
from omegaconf import OmegaConf

from contextrl.scripts.run_folder import CONFIG, load_run, new_run_dir, save_whole
from contextrl.verl_ext.compose import compose
from contextrl.verl_ext.errors import ConfigError


@pytest.fixture
def begun(tmp_path):
    """A run that ended before its training."""
    config = compose([f"job.run_dir={tmp_path / 'run'}", "ca.lam=0.25"])
    return new_run_dir(config)


def test_a_run_that_ended_before_training_keeps_what_it_was_asked_for(begun):
    assert load_run(begun).ca.lam == 0.25
    assert not (begun / CONFIG).exists()


def test_a_run_that_reached_training_goes_on_with_what_the_trainer_had(begun):
    save_whole(OmegaConf.create({"ca": {"lam": 0.5}}), begun / CONFIG)
    assert load_run(begun).ca.lam == 0.5


def test_a_folder_with_a_run_is_not_begun_anew(begun):
    with pytest.raises(ConfigError, match="--resume"):
        new_run_dir(compose([f"job.run_dir={begun}"]))


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match="found none"):
        load_run(tmp_path)
