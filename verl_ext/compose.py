"""A preset and overrides -> the one resolved configuration that a run stores and trains from."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import hydra.errors
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from contextrl.verl_ext.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parent / "config"

NAMED_BY_USERS = ("job.tasks.validate", "job.tasks.validate_limits", "job.vl.validate")
"""Mappings whose keys are names of one's own, which Hydra takes for misspelt ones without `++`."""


def presets() -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / "preset").glob("*.yaml"))


def needs_gpu(preset: str) -> bool:
    """Read from the preset's own file, so that a wrong machine is told in well under a second."""
    if preset not in presets():
        raise ConfigError(f"unknown preset {preset!r}; known: {', '.join(presets())}")
    text = (CONFIG_DIR / "preset" / f"{preset}.yaml").read_text(encoding="utf-8")
    value = OmegaConf.select(OmegaConf.create(text), "job.needs_gpu")
    return True if value is None else bool(value)


def compose(overrides: Sequence[str]) -> DictConfig:
    """`overrides` in Hydra's grammar, e.g. `preset=qwen3-8b`, `ca.lam=0`.

    Raises `ConfigError` for an unknown key, preset or value, in one line.
    """
    verl = importlib.util.find_spec("verl")
    if verl is None or not verl.submodule_search_locations:
        raise ConfigError(
            "expected veRL to be installed, found no `verl`; run: bash scripts/setup.sh"
        )
    verl_config = Path(verl.submodule_search_locations[0]) / "trainer" / "config"
    search_path = f"hydra.searchpath=[file://{verl_config}]"
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base=None):
            return hydra_compose("contextrl", overrides=[*map(_opened, overrides), search_path])
    except (hydra.errors.HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).strip().splitlines()[0]) from error


def _opened(override: str) -> str:
    key = override.partition("=")[0].strip()
    is_named = any(key == name or key.startswith(f"{name}.") for name in NAMED_BY_USERS)
    return f"++{override.lstrip()}" if is_named else override
