"""A Qwen decoder's forward pass over tokens of text, with as little around it as can be.

A tiny model on a CPU spends its time between the operations: a step of one token per row is a few
hundred of them. This is the same arithmetic on the same weights without modules, hooks and masks
that are known here. Prompts with images go through the model itself.

Shape letters: R rows, T tokens of each, N heads, D head size, H hidden size, L cache length, V.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from contextrl.verl_ext.row_cache import RowCache

KNOWN = ("Qwen3Model", "Qwen2_5_VLTextModel", "Qwen3VLTextModel")


class LastLogits:
    """A model's logits after the last token of each row, leanly where that can be."""

    def __init__(self, model: Any, cache: RowCache) -> None:
        self._model, self._cache = model, cache
        self.lean = LeanDecoder.of(model)

    def __call__(self, ids_R_T: Tensor, positions: Tensor, mask: Tensor, **seen: Tensor) -> Tensor:
        """[R, V]. `positions` as the model has them, `seen` what a prompt's images are."""
        if self.lean is not None and not seen:
            # The last axis of M-RoPE, on which text stands as on the others.
            at_R_T = positions[-1] if positions.ndim == 3 else positions
            return self.lean(ids_R_T, at_R_T, mask, self._cache)
        out = self._model(
            input_ids=ids_R_T,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            **seen,
        )
        logits_R_V: Tensor = out.logits[:, -1]
        return logits_R_V


class LeanDecoder:
    """Reads the model's parameters at every call, so that it needs no word of new weights."""

    def __init__(self, text_model: Any, lm_head: Any) -> None:
        self._model, self._head = text_model, lm_head
        config = text_model.config
        self._head_dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        self._grouped = config.num_attention_heads != config.num_key_value_heads
        self._layers = list(text_model.layers)

    @classmethod
    def of(cls, model: Any) -> LeanDecoder | None:
        """None for a model that computes anything else than is written here."""
        inner = getattr(model, "model", None)
        text_model = getattr(inner, "language_model", inner)
        if type(text_model).__name__ not in KNOWN:
            return None
        config = text_model.config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        plain = (
            kinds == {"full_attention"}
            and config.hidden_act == "silu"
            and text_model.rotary_emb.rope_type == "default"
            and next(text_model.parameters()).dtype == torch.float32
        )
        return cls(text_model, model.get_output_embeddings()) if plain else None

    def __call__(
        self, ids_R_T: Tensor, positions_R_T: Tensor, mask_R_1_T_L: Tensor, cache: RowCache
    ) -> Tensor:
        """Logits [R, V] after the last token of each row, whose window `cache` has been told.

        A token of text stands at one position on all axes of M-RoPE, which is plain RoPE then.
        """
        hidden = self._model.embed_tokens.weight[ids_R_T]
        rotary = self._model.rotary_emb
        angles = positions_R_T[:, None, :, None].float() * rotary.inv_freq
        cos, sin = angles.cos(), angles.sin()  # [R, 1, T, D/2]
        if rotary.attention_scaling != 1.0:
            cos, sin = cos * rotary.attention_scaling, sin * rotary.attention_scaling
        for number, layer in enumerate(self._layers):
            normed = _normed(layer.input_layernorm, hidden)
            hidden = hidden + self._attend(
                layer.self_attn, normed, cos, sin, mask_R_1_T_L, cache, number
            )
            normed = _normed(layer.post_attention_layernorm, hidden)
            mlp = layer.mlp
            gated = silu(linear(normed, mlp.gate_proj.weight, mlp.gate_proj.bias))
            gated = gated.mul_(linear(normed, mlp.up_proj.weight, mlp.up_proj.bias))
            hidden = hidden + linear(gated, mlp.down_proj.weight, mlp.down_proj.bias)
        last_R_H = _normed(self._model.norm, hidden[:, -1])
        return linear(last_R_H, self._head.weight, self._head.bias)

    def _attend(
        self,
        attention: Any,
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        cache: RowCache,
        number: int,
    ) -> Tensor:
        shape = (*hidden.shape[:2], -1, self._head_dim)
        query, key, value = (
            linear(hidden, each.weight, each.bias).view(shape)
            for each in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = _normed(attention.q_norm, query), _normed(attention.k_norm, key)
        query = _turned(query.transpose(1, 2), cos, sin)
        key = _turned(key.transpose(1, 2), cos, sin)
        keys, values = cache.update(key, value.transpose(1, 2), number)
        out = scaled_dot_product_attention(
            query, keys, values, mask, scale=attention.scaling, enable_gqa=self._grouped
        )
        out = out.transpose(1, 2).flatten(2)
        return linear(out, attention.o_proj.weight, attention.o_proj.bias)


def _normed(norm: Any, hidden: Tensor) -> Tensor:
    return rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _turned(heads_R_N_T_D: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: each dimension of the first half turns with its fellow of the second."""
    first, second = heads_R_N_T_D.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
