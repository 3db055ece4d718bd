"""Our two configuration blocks, parsed once into frozen dataclasses: `ca:` and `job:`.

`ca:` is the loss, read by the engine. `job:` is what surrounds a training: tasks, episodes,
warm-up, mining. Everything else in a preset is veRL's own and means what veRL's documentation
says.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from contextrl.agents.types import Limits
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings_sandbox import SandboxConfig
from contextrl.verl_ext.settings_vl import VLConfig

T = TypeVar("T")


class Reuse(StrEnum):
    """Which pairs an optimizer step sees; the release's two recipes differ in it."""

    FRESH = "fresh"
    """New pairs at every optimizer step, cycling through the set (agentic recipe)."""
    PER_ROLLOUT = "per-rollout"
    """One draw per rollout batch, seen again at each of its optimizer steps (multimodal recipe)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CAConfig:
    """Values of `ca:`. The default of `lam` is the paper's for Klear and the release's for
    Qwen2.5-VL, the others are the release's agentic recipe; a preset states its model's own."""

    lam: float = 0.005
    """Weight of the CA loss. 0 still measures the margins of the drawn pairs, without gradient."""
    clip: float = 5.0
    pairs: str | None = None
    """Pair file or folder to train on, or of the hub: hf://owner/name, hf://owner/name@split, or
    hf://owner/name/PATTERN for one file; null trains plain GRPO."""
    held_out: str | None = None
    """Pair file or folder for the probe at every validation; null for none but `n_held_out`."""
    n_held_out: int = 0
    """With `held_out` null: so many of `pairs` are only measured on, chosen by their numbers alone.
    At most a quarter. They may share contexts with others: `mine` splits pairs of one's own better.
    """
    pairs_per_step: int = 8
    """Over all ranks, per optimizer step."""
    micro_batch_size: int = 1
    """Pairs per forward pass and rank."""
    reuse: Reuse = Reuse.FRESH
    seed: int = 0
    style: str = "released"
    """Name of the prompt style in `contextrl.pairs.render`."""
    prefill: str | None = None
    """Overrides what the style puts before the letter; null keeps the style's own."""
    max_prompt_tokens: int = 32768
    """Longer prompts are trimmed where both contexts agree, or left out."""
    min_pixels: int = 784
    """Smaller images are enlarged before a model sees them; the release's value."""
    max_pixels: int = 1_003_520
    """Larger images are reduced; the release's value."""
    grad_norm_every: int = 1
    """Optimizer steps between measurements of the two gradient norms apart; 0 for never.

    A measurement keeps one extra sharded copy of the gradients alive for the step.
    """

    def __post_init__(self) -> None:
        _require(self.lam >= 0, f"ca.lam must be >= 0, got {self.lam}")
        _require(self.clip > 0, f"ca.clip must be > 0, got {self.clip}")
        for name in ("pairs_per_step", "micro_batch_size", "max_prompt_tokens", "min_pixels"):
            value = getattr(self, name)
            _require(value >= 1, f"ca.{name} must be >= 1, got {value}")
        for name in ("n_held_out", "grad_norm_every"):
            value = getattr(self, name)
            _require(value >= 0, f"ca.{name} must be >= 0, got {value}")
        _require(
            self.max_pixels >= self.min_pixels,
            f"ca.max_pixels must be >= ca.min_pixels {self.min_pixels}, got {self.max_pixels}",
        )

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any]) -> CAConfig:
        return parse_block(cls, block, "ca")

    def check_ranks(self, dp_size: int) -> None:
        """Every rank must run the same number of CA micro-batches, or FSDP's collectives hang."""
        unit = dp_size * self.micro_batch_size
        _require(
            self.pairs_per_step % unit == 0,
            f"ca.pairs_per_step must be a multiple of data-parallel ranks x ca.micro_batch_size = "
            f"{dp_size} x {self.micro_batch_size}, got {self.pairs_per_step}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """Where tasks come from: a package to mutate, or files of dataset rows."""

    package: str | None = None
    """A package known to `contextrl tasks build`; its splits replace the two fields below."""
    train: str | None = None
    """Task or dataset file (JSONL or parquet), or of the hub as `ca.pairs`."""
    validate: dict[str, str] = field(default_factory=dict)
    """Split name to file."""
    n_train: int = 240
    n_heldout_functions: int = 60
    n_heldout_mutants: int = 50
    n_extra: int = 600
    """Further bugs of the training functions, for the warm-up only."""
    train_limit: int | None = None
    """RL trains on the first so many training tasks, so that each comes back; null for all.

    With `package` the others, without the candidates, are what the warm-up and the miner work on:
    RL meets no task whose solution was shown.
    """
    candidates: int | None = None
    """With `package` and a tiny policy: the first so many training tasks are played first, and RL
    trains on `train_limit` of them that are solved sometimes. Null trains on the first ones."""
    candidate_samples: int = 4
    validate_limit: int | None = None
    """At most this many tasks per validation split, the first ones in file order."""
    validate_limits: dict[str, int] = field(default_factory=dict)
    """Split name to its own limit, where it differs from `validate_limit`."""
    validate_train: bool = False
    """Measure before and after on the training tasks too, as split `train`."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            self.candidates is None or self.candidates >= (self.train_limit or 1),
            f"job.tasks.candidates must be >= job.tasks.train_limit {self.train_limit}, got "
            f"{self.candidates}",
        )
        _require(
            self.candidate_samples >= 2,
            f"job.tasks.candidate_samples must be >= 2, got {self.candidate_samples}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupConfig:
    """The tiny policy and its SFT. Unused when `actor_rollout_ref.model.path` is a real model."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    """As many as heads: in half of them queries and keys begin equal (`tiny.match_like_tokens`)."""
    vocab_size: int = 2048
    basic_steps: int = 250
    """Optimizer steps that the basic reading drills may take, alone, before all else."""
    steps: int = 1000
    """After those: drills and SFT by turns."""
    batch_size: int = 32
    """Runs in a step of SFT."""
    learning_rate: float = 3e-3
    drill_patience: int = 60
    """Batches after which a stage of the drills is left though it was not passed."""
    drill_stages: int | None = None
    """The first so many of `drills.DrillMaker`'s; all of them teach the selection itself."""
    drill_tokens: int = 6000
    """Per batch of drills, padding included."""
    drill_frac: float = 0.75
    """Share of the first of `steps` that are drills; it falls evenly to that of the last."""
    last_drill_frac: float = 0.2
    made_up_frac: float = 0.5
    """Share of the runs that are on made-up bugs (`made_up_bugs`)."""
    max_runs: int = 1600
    """Scripted runs to learn from."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningConfig:
    """Pairs from the run's own episodes."""

    max_tasks: int = 400
    """Tasks to play: those that RL leaves out, then the further bugs that the warm-up saw."""
    samples: int = 1
    """Episodes per task."""
    temperature: float = 1.0
    max_train: int = 1000
    max_held_out: int = 200
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Values of `job:`."""

    run_dir: str = ""
    """Set by the job for each run."""
    cache_dir: str = ""
    seed: int = 0
    """Of everything that a repetition of the job draws anew: weights, warm-up, pairs and their
    order, sampled tokens. `job.tasks.seed` and `job.vl.scenes.seed` say what is learned, and stay.
    """
    needs_gpu: bool = False
    prompts: str = "swe"
    """Prompt set of `contextrl.agents.prompting`; it decides the action format too."""
    enable_thinking: bool | None = None
    """Passed to the chat template; null leaves the template's default."""
    grade_unsubmitted: bool = True
    poll_interval_s: float = 2.0
    """Between looks at veRL's replay buffer: the floor of a step's time."""
    limits: Limits = field(default_factory=Limits)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    tasks: TaskConfig = field(default_factory=TaskConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    mining: MiningConfig = field(default_factory=MiningConfig)
    vl: VLConfig = field(default_factory=VLConfig)

    @property
    def template_kwargs(self) -> Mapping[str, Any] | None:
        """For the chat template."""
        thinking = self.enable_thinking
        return None if thinking is None else {"enable_thinking": thinking}

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any]) -> JobConfig:
        return parse_block(cls, block, "job")


def parse_block(cls: type[T], block: Mapping[str, Any], where: str) -> T:
    """A frozen dataclass from a mapping: nested ones too, unknown keys and wrong types named."""
    hints = typing.get_type_hints(cls)
    known = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in block.items():
        name = f"{where}.{key}"
        _require(key in known, f"unknown key {name}; known: {', '.join(sorted(known))}")
        hint = hints[str(key)]
        if dataclasses.is_dataclass(hint):
            _require(isinstance(value, Mapping), f"{name} must be a block, got {value!r}")
            values[str(key)] = parse_block(typing.cast(type[Any], hint), value, name)
        elif isinstance(hint, type) and issubclass(hint, StrEnum):
            choices = [str(choice) for choice in hint]
            _require(value in choices, f"{name} must be one of {choices}, got {value!r}")
            values[str(key)] = hint(value)
        else:
            values[str(key)] = _scalar(hint, value, name)
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _scalar(hint: Any, value: Any, name: str) -> Any:
    allowed = set(typing.get_args(hint)) or {typing.get_origin(hint) or hint}
    if typing.get_origin(hint) is dict:
        _require(isinstance(value, Mapping), f"{name} must be a mapping, got {value!r}")
        return {str(key): item for key, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        return float(value)
    if isinstance(value, str) and float in allowed:  # YAML 1.1 reads 5e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    kinds = tuple(kind for kind in allowed if isinstance(kind, type))
    bool_for_int = isinstance(value, bool) and bool not in allowed
    expected = " or ".join(sorted("null" if k is type(None) else k.__name__ for k in kinds))
    _require(
        isinstance(value, kinds) and not bool_for_int, f"{name} must be {expected}, got {value!r}"
    )
    return value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
