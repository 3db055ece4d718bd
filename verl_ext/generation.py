"""Continuous batching for a transformers model: many conversations, one forward pass per token.

Veterans of vLLM will know the shape. Every conversation owns a row of one preallocated key/value
cache; a request that continues its conversation re-uses the row and only its new tokens are
prefilled. While at least half of the rows in reach are busy, idle ones (their sandbox is at
work) ride along masked, because for a small model that is cheaper than copying the cache to
close the gap.

Shape letters: R cache rows, H key/value heads, L cache length, D head size, T new tokens, V
vocabulary.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from contextrl.verl_ext.image_attention import attend_by_length
from contextrl.verl_ext.lean_decoder import LastLogits
from contextrl.verl_ext.prompt_memory import KnownPrompt, PromptMemory
from contextrl.verl_ext.quick_norms import quicken_norms
from contextrl.verl_ext.row_cache import RowCache
from contextrl.verl_ext.sampling import Completion, Request, SamplingParams
from contextrl.verl_ext.vision import ROW_KEY, VisionInputs, is_vision

__all__ = ["Completion", "GenerationEngine", "SamplingParams"]

logger = logging.getLogger(__name__)

PREFILLS_PER_TURN = 4
"""Admitted between two decode steps, so that a burst of long prompts cannot stall the rest."""


class GenerationEngine:
    """Serve `generate` to any number of threads from one model. Close it, or use it in a `with`."""

    def __init__(
        self,
        model: Any,
        *,
        max_rows: int = 64,
        max_length: int = 2048,
        seed: int = 0,
    ) -> None:
        self.model = model.eval()
        quicken_norms(self.model)
        attend_by_length(self.model)
        self.max_length = max_length
        self.cache = RowCache(self.model, max_rows, max_length)
        self._held: list[list[int]] = [[] for _ in range(max_rows)]
        """Token ids whose keys and values each row holds."""
        self._memory = PromptMemory()
        self._last_logits = LastLogits(self.model, self.cache)
        self._sees = is_vision(model.config)
        self._shift = [0] * max_rows
        """Per row, of a model that sees: how far the next position is from the row's length."""
        self._row_of: OrderedDict[str, int] = OrderedDict()
        """Session to row, least recently used first."""
        self._free = list(reversed(range(max_rows)))
        self._active: dict[int, Request] = {}
        self._waiting: queue.SimpleQueue[Request | Callable[[], None] | None] = queue.SimpleQueue()
        self._postponed: list[Request] = []
        self._rng = torch.Generator().manual_seed(seed)
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        session_id: str,
        vision: VisionInputs | None = None,
    ) -> Future[Completion]:
        """Queue one reply. The future fails with `ValueError` if it cannot fit the cache."""
        future: Future[Completion] = Future()
        total = len(prompt_ids) + params.max_new_tokens
        if not prompt_ids or params.max_new_tokens < 1 or total > self.max_length:
            future.set_exception(
                ValueError(
                    f"expected a prompt and at least one new token within {self.max_length} "
                    f"tokens, got {len(prompt_ids)} + {params.max_new_tokens}"
                )
            )
            return future
        self._waiting.put(Request(session_id, list(prompt_ids), params, future, vision))
        return future

    def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        session_id: str,
        vision: VisionInputs | None = None,
    ) -> Completion:
        """`submit` and wait."""
        return self.submit(prompt_ids, params, session_id=session_id, vision=vision).result()

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` between two forwards, e.g. to load weights; then forget every cache."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                function()
                for row in range(len(self._held)):
                    if row not in self._active:
                        self._held[row] = []
                self._memory.clear()
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        self._waiting.put(run)
        done.result()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> GenerationEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Below runs on the engine's own thread only.

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            try:
                if not self._admit():
                    break
                if self._active:
                    self._decode()
            except Exception as error:
                logger.exception("generation failed; its requests fail with it")
                self._fail(error)
        self._fail(RuntimeError("the generation engine was closed"))

    def _admit(self) -> bool:
        """Take in what waits; sleep when there is nothing to do. False once closed."""
        budget = PREFILLS_PER_TURN
        while budget:
            request: Request | Callable[[], None] | None
            if self._postponed:
                request = self._postponed.pop(0)
            else:
                try:
                    request = self._waiting.get(block=not self._active)
                except queue.Empty:
                    return True
            if request is None:
                return False
            if not isinstance(request, Request):
                request()
                continue
            row = self._row_for(request)
            if row is None:
                self._postponed.insert(0, request)
                return True
            self._prefill(row, request)
            budget -= 1
        return True

    def _row_for(self, request: Request) -> int | None:
        """The session's row, a free one, or the longest idle one; None if all are busy."""
        row = self._row_of.get(request.session_id)
        if row is not None and row in self._active:
            return None  # two requests of one session: the second waits for the first
        if row is None:
            if self._free:
                row = self._free.pop()
            else:
                idle = next((s for s, r in self._row_of.items() if r not in self._active), None)
                if idle is None:
                    return None
                row = self._row_of.pop(idle)
                self._held[row] = []
            self._row_of[request.session_id] = row
        self._row_of.move_to_end(request.session_id)
        return row

    def _prefill(self, row: int, request: Request) -> None:
        held = self._held[row]
        shared = _common_prefix(held, request.prompt_ids)
        shared = min(shared, len(request.prompt_ids) - 1)  # the last token must yield logits
        seen = request.vision.model_inputs() if request.vision is not None else {}
        seen.pop(ROW_KEY, None)
        if seen:
            shared = 0  # like tokens do not mean like images
        known = self._memory.find(request.prompt_ids, request.vision)
        if known is not None and known.row != row:
            self._memory.forget_row(row, beyond=shared)
            self._copy_prompt(row, request, known)
            return
        self._memory.forget_row(row, beyond=shared)
        new_ids = request.prompt_ids[shared:]
        n_new, device = len(new_ids), self.cache.keys[0].device
        self._active[row] = request
        self.cache.window(slice(row, row + 1), torch.tensor([shared]), n_new)
        position_T = torch.arange(shared, shared + n_new, device=device)
        key_L = torch.arange(shared + n_new, device=device)
        mask = (key_L[None, :] <= position_T[:, None])[None, None]  # [1, 1, T, L]
        ids = torch.tensor([new_ids], device=device)
        positions = self._prompt_positions(row, request, position_T)
        seen = {key: value.to(device) for key, value in seen.items()}
        logits_1_V = self._last_logits(ids, positions, mask, **seen)
        self._held[row] = list(request.prompt_ids)
        self._memory.note(request.prompt_ids, KnownPrompt(row, logits_1_V, request.vision))
        self._sample([row], logits_1_V)

    def _copy_prompt(self, row: int, request: Request, known: KnownPrompt) -> None:
        self.cache.copy(known.row, row, len(request.prompt_ids))
        self._shift[row] = self._shift[known.row]
        self._held[row] = list(request.prompt_ids)
        self._active[row] = request
        self._sample([row], known.logits_1_V)

    def _prompt_positions(self, row: int, request: Request, position_T: Tensor) -> Tensor:
        """[1, T], or [4, 1, T] for a model that sees, whose images take fewer steps than tokens."""
        if not self._sees:
            return position_T[None]
        if request.vision is None:
            self._shift[row] = 0
            return position_T.expand(4, 1, -1)
        positions = request.vision.positions
        self._shift[row] = int(positions[1:].max()) + 1 - positions.shape[1]
        return positions[:, None, position_T[0] :].to(position_T.device)

    def _decode(self) -> None:
        """One token for every active row."""
        active = sorted(self._active)
        top = active[-1] + 1
        dense = top <= 2 * len(active)
        rows = list(range(top)) if dense else active
        for row in rows:  # a full idle row gives up its last slot for the masked token to land in
            del self._held[row][self.max_length - 1 :]
        device = self.cache.keys[0].device
        start_R = torch.tensor([len(self._held[row]) for row in rows], device=device)
        ids_R = torch.tensor(
            [self._active[row].token_ids[-1] if row in self._active else 0 for row in rows],
            device=device,
        )
        window = slice(0, top) if dense else torch.tensor(rows, device=device)
        self.cache.window(window, start_R, 1)
        key_L = torch.arange(self.cache.visible, device=device)
        mask = (key_L[None, :] <= start_R[:, None])[:, None, None]  # [R, 1, 1, L]
        positions = start_R[:, None]  # [R, 1]
        if self._sees:  # [4, R, 1]
            shift_R = torch.tensor([self._shift[row] for row in rows], device=device)
            positions = torch.stack([positions, *[positions + shift_R[:, None]] * 3])
        logits_R_V = self._last_logits(ids_R[:, None], positions, mask)
        for row in active:
            self._held[row].append(self._active[row].token_ids[-1])
        self._sample(active, logits_R_V[active] if dense else logits_R_V)

    def _sample(self, rows: list[int], logits_R_V: Tensor) -> None:
        logits_R_V = logits_R_V.float()
        temperature_R = torch.tensor(
            [self._active[row].params.temperature or 1.0 for row in rows], device=logits_R_V.device
        )
        logp_R_V = torch.log_softmax(logits_R_V / temperature_R[:, None], dim=-1)
        sampled_R = torch.multinomial(logp_R_V.exp().cpu(), 1, generator=self._rng)[:, 0]
        greedy_R = logp_R_V.argmax(dim=-1)
        for i, row in enumerate(rows):
            request = self._active[row]
            token = int(greedy_R[i] if request.params.temperature == 0 else sampled_R[i])
            request.token_ids.append(token)
            request.logprobs.append(float(logp_R_V[i, token]))
            stopped = token in request.params.stop_token_ids
            if stopped or len(request.token_ids) >= request.params.max_new_tokens:
                del self._active[row]
                request.future.set_result(
                    Completion(request.token_ids, request.logprobs, finished=stopped)
                )

    def _fail(self, error: Exception) -> None:
        self._memory.clear()
        for row in list(self._active):
            self._held[row] = []
            self._active.pop(row).future.set_exception(error)
        for request in self._postponed:
            request.future.set_exception(error)
        self._postponed = []


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    n = min(len(left), len(right))
    return next((i for i in range(n) if left[i] != right[i]), n)
