"""The context-aware loss: choose, of two nearly identical contexts, the one behind an answer.

Shape letters: B pairs, O option tokens that stand for one letter, V vocabulary.

Source: ContextRL (arXiv 2606.17053), section 3: ``L_CA = -log sigmoid(clip(margin, -c, c))``, where
the margin is the logit difference of the two option letters at the last prompt position. The
softmax normaliser cancels, so this is a two-way cross-entropy with a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class CALoss:
    loss: Tensor
    """Scalar: the mean over pairs."""
    metrics: dict[str, Tensor]
    """Scalars, detached, still on the device: reading them is the caller's synchronisation."""


def option_margin(logits_B_V: Tensor, correct_B_O: Tensor, other_B_O: Tensor) -> Tensor:
    """Logit of the correct letter minus logit of the other one, shape [B].

    A letter may be written by more than one token ("A" and " A"); the likelier one counts, as in
    the release. Letters with fewer spellings than O repeat one of them.
    """
    correct_B = logits_B_V.gather(1, correct_B_O).amax(dim=1)
    other_B = logits_B_V.gather(1, other_B_O).amax(dim=1)
    return correct_B - other_B


def ca_loss(margin_B: Tensor, *, clip: float) -> CALoss:
    """Negative log-sigmoid of the clipped margin, averaged over pairs.

    The gradient is exactly zero beyond the clip on BOTH sides: a pair that is right by more than
    ``clip`` is learned, and a pair that is wrong by more than ``clip`` is stuck and teaches
    nothing. Watch ``ca/stuck_frac``.
    """
    if clip <= 0:
        raise ValueError(f"clip must be positive, got {clip}")
    loss = -F.logsigmoid(margin_B.clamp(-clip, clip)).mean()
    margin_B = margin_B.detach()
    return CALoss(
        loss,
        {
            "ca/loss": loss.detach(),
            "ca/accuracy": (margin_B > 0).float().mean(),
            "ca/margin": margin_B.mean(),
            "ca/stuck_frac": (margin_B < -clip).float().mean(),
            "ca/saturated_frac": (margin_B > clip).float().mean(),
        },
    )


def gradient_norms(ca: Tensor, grpo: Tensor, total: Tensor) -> dict[str, Tensor]:
    """The two terms' gradient norms apart, and the cosine between them.

    The cosine follows from ``|ca + grpo|^2``, so no dot product over the parameters is needed. Zero
    when either term vanished.
    """
    product = 2 * ca * grpo
    cosine = (total.square() - ca.square() - grpo.square()) / product
    return {
        "ca/grad_norm": ca,
        "ca/grad_norm_grpo": grpo,
        "ca/grad_cosine": torch.where(product > 0, cosine, torch.zeros_like(cosine)).clamp(-1, 1),
    }
