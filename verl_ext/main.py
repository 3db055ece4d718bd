"""The trainer's process: a resolved configuration in, a trained policy out.

`python -m contextrl.verl_ext.main RUN_DIR` reads `RUN_DIR/config.yaml`. The environment of
`register.environment` must be set before this module is imported, because `verl` reads it on
import.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import ray
import verl.trainer.main_ppo as main_ppo
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from contextrl.verl_ext import register
from contextrl.verl_ext.lifeline import end_with_parent


class ContextAwareTaskRunner(main_ppo.TaskRunnerV1.__ray_metadata__.modified_class):
    """veRL's task runner, in an actor that knows our trainer."""

    def run(self, config: Any) -> None:
        register.register_trainer()
        super().run(config)


def train(config_path: Path) -> None:
    config = OmegaConf.load(config_path)
    assert isinstance(config, DictConfig)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    _tell_other_nodes(config)
    try:
        run_ppo(config, task_runner_class=ray.remote(ContextAwareTaskRunner))
    finally:
        ray.shutdown()


def _tell_other_nodes(config: DictConfig) -> None:
    """Processes of a Ray cluster that ran before us inherit nothing from this one."""
    wanted = register.environment(cpu=os.environ.get("VERL_PLATFORM") == "cpu")
    if "OMP_NUM_THREADS" in os.environ:
        wanted = {**wanted, "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
    key = "ray_kwargs.ray_init.runtime_env.env_vars"
    with open_dict(config):
        OmegaConf.update(config, key, {**wanted, **(OmegaConf.select(config, key) or {})})


if __name__ == "__main__":
    end_with_parent()
    train(Path(sys.argv[1]) / "config.yaml")
