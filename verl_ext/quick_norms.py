"""RMS norms with a backward pass of their own, for training on a CPU.

PyTorch keeps no such kernel there: transformers' norms are six operations over the hidden states
forward, and autograd's dozen backward. Here it is seven altogether, in less than half of the time.

Shape letters: B sequences, T tokens, H the normalised dimension; N all but the last dimension.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor


def quicken_norms(model: torch.nn.Module) -> None:
    """The RMS norms of a Qwen model compute as here where their input is float32."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = partial(_forward, module, type(module).forward)


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """hidden / sqrt(mean(hidden^2) + eps) * weight over the last dimension, in float32."""
    normed: Tensor = _RMSNorm.apply(hidden, weight, eps)  # type: ignore[no-untyped-call]
    return normed


def _forward(module: Any, usual: Any, hidden: Tensor) -> Tensor:
    if hidden.dtype == module.weight.dtype == torch.float32:
        return rms_norm(hidden, module.weight, module.variance_epsilon)
    normed: Tensor = usual(module, hidden)
    return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        scale = scale.square_().div_(hidden.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(hidden, weight_H, scale)
        return (hidden * scale).mul_(weight_H)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        hidden, weight_H, scale = ctx.saved_tensors
        size = hidden.shape[-1]
        product_N_H = (grad * hidden).reshape(-1, size)
        grad_weight_H = scale.reshape(1, -1) @ product_N_H
        along = (product_N_H @ weight_H).view_as(scale)
        grad_hidden = (grad * weight_H).mul_(scale)
        grad_hidden.addcmul_(hidden, along.mul_(scale.pow(3)), value=-1 / size)
        return grad_hidden, grad_weight_H[0], None
