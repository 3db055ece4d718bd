"""The two terms' gradients apart: set CA's aside, let GRPO's come out alone, add them up again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from contextrl.verl_ext.ca_loss import gradient_norms

Taken = list[tuple[torch.nn.Parameter, Tensor | None]]


def take_gradients(module: torch.nn.Module) -> Taken:
    """Set the reduced CA gradients aside, so that GRPO's come out alone."""
    taken = []
    for parameter in module.parameters():
        taken.append((parameter, parameter.grad))
        parameter.grad = None
    return taken


def give_back_gradients(taken: Taken) -> dict[str, list[float]]:
    """Add the set-aside gradients to GRPO's; report the norms of both and of the sum."""
    device = taken[0][0].device
    ca = _norm([grad for _, grad in taken], device)
    grpo = _norm([parameter.grad for parameter, _ in taken], device)
    for parameter, grad in taken:
        if grad is None:
            continue
        parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)
    total = _norm([parameter.grad for parameter, _ in taken], device)
    return {key: [float(value)] for key, value in gradient_norms(ca, grpo, total).items()}


def _norm(grads: Sequence[Tensor | None], device: torch.device) -> Tensor:
    """Global L2 norm of sharded gradients, the same on every rank."""
    present = [grad for grad in grads if grad is not None]
    if not present:
        return torch.zeros((), device=device)
    norm = torch.nn.utils.get_total_norm(present)
    if isinstance(norm, DTensor):
        return norm.full_tensor()
    if dist.is_initialized() and not isinstance(present[0], DTensor):  # FSDP1: flat local shards
        squared = norm.square()
        dist.all_reduce(squared)
        return squared.sqrt()
    return norm
