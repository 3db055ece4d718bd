"""Log-probabilities of a sequence's tokens in blocks, where flash-attn's kernel is not installed.

Without flash-attn veRL 0.9.1 loops over the tokens: one kernel each, one graph node each, and in
bfloat16 the log-softmax of bfloat16. Here a block of rows is one kernel in float32, and nothing is
kept for the backward pass but the logits themselves.

Shape letters: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK_BYTES = 2**28
"""Of logits at once, in float32: the working memory of both passes, whatever the length."""


def token_logprobs(logits: Tensor, labels: Tensor, inplace_backward: bool = True) -> Tensor:
    """log softmax(logits)[label] of every position: [..., V] and [...] to [...], float32 or wider.

    Where `inplace_backward`, the gradient takes the place of the logits, which nothing may read
    afterwards; autograd refuses it if anything would. The signature is that of veRL's
    `logprobs_from_logits`.
    """
    flat_T_V = logits.reshape(-1, logits.shape[-1])
    logprobs_T: Tensor = _TokenLogProbs.apply(flat_T_V, labels.reshape(-1), inplace_backward)  # type: ignore[no-untyped-call]
    return logprobs_T.view(labels.shape)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_T_V: Tensor, labels_T: Tensor, inplace: bool) -> Tensor:
        ctx.save_for_backward(logits_T_V, labels_T)
        ctx.inplace, ctx.wide = inplace, torch.promote_types(logits_T_V.dtype, torch.float32)
        logprobs_T = torch.empty(len(labels_T), dtype=ctx.wide, device=logits_T_V.device)
        for rows in _blocks(logits_T_V):
            block = logits_T_V[rows].log_softmax(-1, dtype=ctx.wide)
            logprobs_T[rows] = block.gather(-1, labels_T[rows, None])[:, 0]
        return logprobs_T

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """d log p(label) / d logits is one at the label, less the probabilities."""
        logits_T_V, labels_T = ctx.saved_tensors
        grad_T_V = logits_T_V if ctx.inplace else torch.empty_like(logits_T_V)
        for rows in _blocks(logits_T_V):
            block = logits_T_V[rows].softmax(-1, dtype=ctx.wide)
            block.mul_(-grad_T[rows, None])
            block.scatter_add_(-1, labels_T[rows, None], grad_T[rows, None])
            grad_T_V[rows] = block
        return grad_T_V, None, None


def _blocks(logits_T_V: Tensor) -> Iterator[slice]:
    n_rows, width = logits_T_V.shape
    size = max(1, BLOCK_BYTES // (4 * width))
    for start in range(0, n_rows, size):
        yield slice(start, start + size)
