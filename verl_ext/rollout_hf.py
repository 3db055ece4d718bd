"""veRL's rollout server on plain transformers: what a machine without GPUs samples from.

Registered under the name `hf`. One Ray actor holds a `GenerationEngine`; the trainer's ranks push
full weights to it through Ray's object store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import ray
import torch
from PIL import Image
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator

from contextrl.verl_ext.errors import ModelError
from contextrl.verl_ext.generation import GenerationEngine, SamplingParams
from contextrl.verl_ext.sampling import check_sampling
from contextrl.verl_ext.scorer_hf import load_model, load_tokenizer
from contextrl.verl_ext.server_reply import NO_ROOM
from contextrl.verl_ext.vision import VisionInputs, is_vision

NAME = "hf"
KEPT_PROMPTS = 32
"""Prepared images of the last ones; a group of replies comes close together."""


class HFServer:
    """The actor behind one replica. Method names are veRL's server protocol."""

    def __init__(self, model_path: str, config: Any, replica_rank: int) -> None:
        check_sampling(config)
        check_sampling(config.val_kwargs)
        # The other half of the machine is for sandboxes, which are busy at the same time.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        model = load_model(model_path, torch.float32)
        self.tokenizer = load_tokenizer(model_path) if is_vision(model.config) else None
        self._prepared: OrderedDict[Any, VisionInputs] = OrderedDict()
        self.config = config
        self.global_steps: int | None = None
        self.end_ids = _end_ids(model)
        self.engine = GenerationEngine(
            model,
            max_rows=config.max_num_seqs,
            max_length=config.max_model_len,
            seed=config.seed + replica_rank,
        )

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: list[Any] | None = None,
        **_: Any,
    ) -> TokenOutput:
        """One reply, cut where the context ends.

        `image_data` holds the images as `QwenVisionTokenizer.prepared` made them.
        """
        check_sampling(sampling_params)
        room = self.config.max_model_len - len(prompt_ids)
        if room < 1:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens {NO_ROOM} within {self.config.max_model_len}"
            )
        vision = None
        if self.tokenizer is not None:
            vision = self._vision_of(prompt_ids, image_data or [], request_id)
        asked = sampling_params.get("max_tokens") or self.config.response_length
        params = SamplingParams(
            max_new_tokens=min(asked, room),
            temperature=sampling_params.get("temperature", 1.0),
            stop_token_ids=self.end_ids | frozenset(sampling_params.get("stop_token_ids") or ()),
        )
        future = self.engine.submit(prompt_ids, params, session_id=request_id, vision=vision)
        completion = await asyncio.wrap_future(future)
        return TokenOutput(
            token_ids=completion.token_ids,
            log_probs=completion.logprobs,
            stop_reason="completed" if completion.finished else "length",
            extra_fields={"global_steps": self.global_steps},
        )

    def _vision_of(
        self, prompt_ids: list[int], images: Sequence[Image.Image], request_id: str
    ) -> VisionInputs:
        """Prepared once for all replies to one prompt."""
        assert self.tokenizer is not None
        shown = hashlib.sha256(b"".join(image.tobytes() for image in images)).digest()
        key = (tuple(prompt_ids), tuple(image.size for image in images), shown)
        if key not in self._prepared:
            self._prepared[key] = self.tokenizer.inputs_of(prompt_ids, images, row_id=request_id)
            while len(self._prepared) > KEPT_PROMPTS:
                self._prepared.popitem(last=False)
        return dataclasses.replace(self._prepared[key], row_id=request_id)

    async def load_weights(
        self, weights: dict[str, torch.Tensor], global_steps: int | None = None
    ) -> None:
        """Replace all weights between two tokens. Raises `ModelError` on a name mismatch."""
        await asyncio.to_thread(self.engine.call, lambda: self._load(weights))
        self.global_steps = global_steps

    def _load(self, weights: dict[str, torch.Tensor]) -> None:
        model = self.engine.model
        tied = set(getattr(model, "_tied_weights_keys", None) or ())
        missing, unexpected = model.load_state_dict(weights, strict=False)
        missing = [name for name in missing if name not in tied]
        if missing or unexpected:
            raise ModelError(
                f"weight sync expected the server's own parameter names, got {len(missing)} "
                f"missing and {len(unexpected)} unknown, e.g. {[*missing, *unexpected][0]}"
            )

    # What veRL asks of a GPU server around training; nothing to give back on a CPU.
    async def wake_up(self, *_: Any, **__: Any) -> None: ...

    async def sleep(self, *_: Any, **__: Any) -> None: ...

    async def clear_kv_cache(self) -> None: ...

    async def release_kv_cache(self) -> None: ...

    async def resume_kv_cache(self) -> None: ...

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        return {"aborted_count": 0, "request_ids": []}

    async def resume_generation(self) -> None: ...

    async def start_profile(self, **_: Any) -> None: ...

    async def stop_profile(self) -> None: ...


class HFReplica(RolloutReplica):  # type: ignore[misc]
    async def launch_servers(self) -> None:
        name = _server_name(self.replica_rank, self.name_suffix)
        server = (
            ray.remote(HFServer)
            .options(name=name, num_cpus=0, max_concurrency=1024)
            .remote(self.model_config.path, self.config, self.replica_rank)
        )
        self.servers = [server]
        self._server_handle = server
        self._server_address = name
        await server.clear_kv_cache.remote()


class HFServerAdapter(BaseRollout):  # type: ignore[misc]
    """Lives in each trainer rank; the first rank of a replica pushes the weights to its server."""

    def __init__(
        self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1
    ) -> None:
        super().__init__(config, model_config, device_mesh)
        per_replica = (
            self.config.tensor_model_parallel_size
            * self.config.data_parallel_size
            * self.config.pipeline_model_parallel_size
        )
        rank = int(os.environ["RANK"])
        self.replica_rank = rank // per_replica if replica_rank == -1 else replica_rank
        self.is_leader = rank % per_replica == 0

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Iterator[tuple[str, torch.Tensor]] | AsyncIterator[tuple[str, torch.Tensor]],
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Every rank consumes the iterator: unsharding a parameter is a collective."""
        full: dict[str, torch.Tensor] = {}
        async for name, tensor in ensure_async_iterator(weights):
            if self.is_leader:
                full[name] = tensor.detach().to("cpu", torch.float32).clone()
        if self.is_leader:
            server = ray.get_actor(_server_name(self.replica_rank))
            await server.load_weights.remote(full, global_steps)


def _server_name(replica_rank: int, suffix: str = "") -> str:
    return f"contextrl_{NAME}_server_{replica_rank}{suffix}"


def _end_ids(model: Any) -> frozenset[int]:
    """End tokens as `generate` would use them: generation config first, then model config."""
    for config in (getattr(model, "generation_config", None), model.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    raise ModelError("expected an eos_token_id in the model's configuration, found none; set one")


RolloutReplicaRegistry.register(NAME, lambda: HFReplica)
_ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.HFServerAdapter"
