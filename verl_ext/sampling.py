"""What is asked of a `GenerationEngine`, and what comes back."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.vision import VisionInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    max_new_tokens: int
    temperature: float = 1.0
    """0 is greedy; log-probabilities are then those of the unscaled distribution."""
    stop_token_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Completion:
    token_ids: list[int]
    logprobs: list[float]
    """Under the sampling distribution, natural log."""
    finished: bool
    """Ended by a stop token rather than by `max_new_tokens`."""


@dataclass(slots=True)
class Request:
    session_id: str
    prompt_ids: list[int]
    params: SamplingParams
    future: Future[Completion]
    vision: VisionInputs | None = None
    """Images of the prompt and where its tokens stand; None for a model of text."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def check_sampling(asked: Any) -> None:
    """Raises `ConfigError` for sampling that the engine does not do.

    `asked` is what veRL passes on: a configuration of rollouts, or the parameters of one request.
    """
    for name, *neutral in (("top_p", 1.0), ("top_k", -1, 0), ("repetition_penalty", 1.0)):
        value = asked.get(name)
        if value is not None and value not in neutral:
            raise ConfigError(
                f"expected {name}={neutral[0]} with rollout.name=hf, which samples from the whole "
                f"vocabulary, found {value}; leave it out, in val_kwargs too, or use vllm"
            )
