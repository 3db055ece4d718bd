"""A model in this process as a `TokenServer`: rollouts without veRL, Ray or a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from contextrl.agents.errors import PolicyError
from contextrl.agents.tokens import ServedTokens
from contextrl.verl_ext.generation import GenerationEngine, SamplingParams
from contextrl.verl_ext.scorer_hf import load_model, load_tokenizer


class LocalTokenServer:
    """Continuous batching over one model; safe to call from many threads. Close it when done."""

    def __init__(
        self, model: Any, tokenizer: Any, *, max_context_tokens: int, temperature: float, seed: int
    ) -> None:
        self.tokenizer = tokenizer
        self._temperature = temperature
        self._end_ids = frozenset({tokenizer.eos_token_id})
        self._engine = GenerationEngine(
            model, max_rows=32, max_length=max_context_tokens, seed=seed
        )

    @classmethod
    def from_pretrained(
        cls, path: str, *, max_context_tokens: int, temperature: float = 1.0, seed: int = 0
    ) -> LocalTokenServer:
        """Raises `ModelError` if the folder holds no model, tokenizer or chat template."""
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        tokenizer = load_tokenizer(path)
        return cls(
            load_model(path, torch.float32),
            tokenizer,
            max_context_tokens=max_context_tokens,
            temperature=temperature,
            seed=seed,
        )

    def generate(
        self, prompt_ids: Sequence[int], *, max_new_tokens: int, session_id: str
    ) -> ServedTokens:
        params = SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=self._temperature,
            stop_token_ids=self._end_ids,
        )
        try:
            done = self._engine.generate(prompt_ids, params, session_id=session_id)
        except (ValueError, RuntimeError) as error:
            raise PolicyError(f"local generation failed: {error}") from error
        return ServedTokens(done.token_ids, done.logprobs, done.finished)

    def close(self) -> None:
        self._engine.close()
