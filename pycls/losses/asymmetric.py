"""Asymmetric loss: negatives are focused harder than positives, and easy negatives are dropped.

Ridnik et al., Asymmetric Loss For Multi-Label Classification, 2021. The logarithm of p is taken in log space: clamping p, as the published
code does, takes the gradient from the positives that are most wrong.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import loss


@loss()
def asymmetric(
    logits: Tensor,
    target: Tensor,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    margin: float = 0.05,
    detach_focus: bool = False,
) -> Tensor:
    """-y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q), q = max(p - margin, 0). All [N] or [N, K]. The paper sums: normalization "none".

    With `detach_focus` the two powers are constants to the gradient, as in the published plain class.
    """
    focus = (gamma_positive * F.logsigmoid(-logits)).exp()
    p = logits.sigmoid()
    counts = p > margin
    q = torch.where(counts, p - margin, 0.5)  # any place where the power has a gradient
    pull = q**gamma_negative
    if detach_focus:
        focus, pull = focus.detach(), pull.detach()
    log_rest = torch.log1p(-q) if margin > 0 else F.logsigmoid(-logits)
    negative = torch.where(counts, pull * log_rest, 0.0)
    return -target * focus * F.logsigmoid(logits) - (1 - target) * negative
