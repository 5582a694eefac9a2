"""Logit adjustment: the prior of the classes goes into the loss, or out of the scores afterwards.

Menon et al., Long-tail Learning via Logit Adjustment, 2021. Consistent for the balanced error; together with over-sampling it corrects twice.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .reduction import Numbers, loss, numbers

RAREST = 1e-12  # the prior of a class without samples


def log_prior(prior: Numbers, like: Tensor) -> Tensor:
    """log of the shares of the classes; of counts too."""
    share = numbers(prior, like)
    return (share / share.sum()).clamp(min=RAREST).log()


@loss(classes=True)
def logit_adjusted(logits: Tensor, target: Tensor, *, prior: Numbers, tau: float = 1.0) -> Tensor:
    """Cross-entropy of z + tau log prior. logits [N, C], target int64 [N], prior [C] as shares or counts -> costs [N]."""
    return F.cross_entropy(logits + tau * log_prior(prior, logits), target, reduction="none")


def adjusted(logits: Tensor, prior: Numbers, tau: float = 1.0) -> Tensor:
    """Post hoc: logits [N, C] of a plain cross-entropy, without the prior they have learned."""
    return logits - tau * log_prior(prior, logits)


def moved(logits: Tensor, learned: Numbers, used: Numbers) -> Tensor:
    """Logits [N, C] learned under one prior (a sampler's, say) as they would be under another: z + log used - log learned."""
    return logits + log_prior(used, logits) - log_prior(learned, logits)
