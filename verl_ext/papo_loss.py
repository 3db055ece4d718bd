"""PAPO's perception term, a baseline beside the CA loss: replies should depend on the image.

Shape letters: B replies, T tokens of one reply.

Source: PAPO (arXiv 2507.06448) and the code released with it. The KL divergence of the policy that
sees the image from the same policy that sees it masked is MAXIMISED, at the tokens that were
sampled. Unbounded, it is soon gained by garbage; the paper's remedy is to minimise the entropy
of both policies as well (its double entropy loss).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_LOG_RATIO = 20.0
MOST_KL = 10.0
"""Nats a token, beyond which it teaches nothing; this limit and the last are the release's."""


@dataclass(frozen=True, slots=True)
class PAPOLoss:
    loss: Tensor
    """Scalar, to be added to GRPO's."""
    metrics: dict[str, Tensor]
    """Scalars, detached; like the loss they add up over the micro-batches of one batch."""


def masked_image_kl(logp_B_T: Tensor, masked_logp_B_T: Tensor) -> Tensor:
    """Per token KL(intact || masked), by the estimator r - 1 - log r with r = p_masked / p_intact.

    Never negative, without bias for tokens sampled from the intact policy, at most `MOST_KL`.
    """
    log_ratio = (masked_logp_B_T - logp_B_T).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
    return (log_ratio.exp() - log_ratio - 1).clamp(max=MOST_KL)


def papo_loss(
    logp_B_T: Tensor,
    masked_logp_B_T: Tensor,
    sampled_B_T: Tensor,
    *,
    n_tokens: float,
    coef: float,
    entropy_coef: float,
    masked_entropy_coef: float,
) -> PAPOLoss:
    """``-coef * KL + entropy_coef * H + masked_entropy_coef * H_masked``, as means over tokens.

    The entropies are estimated as the release does, by minus the log-probability of what was
    sampled. `sampled_B_T` is 1 on tokens of the policy; `n_tokens` counts them in the WHOLE
    batch, of which B may be a part.
    """
    if n_tokens <= 0:
        raise ValueError(f"expected a batch with sampled tokens, got {n_tokens}")
    sampled_B_T = sampled_B_T.to(logp_B_T.dtype)

    def mean(values_B_T: Tensor) -> Tensor:
        return (values_B_T * sampled_B_T).sum() / n_tokens

    kl_B_T = masked_image_kl(logp_B_T, masked_logp_B_T)
    kl, entropy, masked_entropy = mean(kl_B_T), mean(-logp_B_T), mean(-masked_logp_B_T)
    loss = -coef * kl + entropy_coef * entropy + masked_entropy_coef * masked_entropy
    return PAPOLoss(
        loss,
        {
            "papo/kl": kl.detach(),
            "papo/entropy": entropy.detach(),
            "papo/masked_entropy": masked_entropy.detach(),
            "papo/saturated_frac": mean((kl_B_T >= MOST_KL).to(torch.float32)).detach(),
        },
    )
