"""Focal loss, sigmoid and softmax: easy examples weigh (1 - p_t)^gamma less.

Lin et al., Focal Loss for Dense Object Detection, 2017. In log space: the textbook formula has a nan for a gradient where 1 - p_t
rounds to 0 and gamma < 1. `alpha` is off by default: the 0.25 of the paper lowers the positives, and was tuned with gamma 2 on detection.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .reduction import Numbers, loss, numbers, picked

NOTHING = -1e30  # the logarithm of a probability that is 0; finite, so that 0 times it is 0


@loss()
def sigmoid_focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: Numbers | None = None) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t, alpha_t = alpha of a positive and 1 - alpha of a negative. All [N] or [N, K]; gamma 0 is bce.

    A target between 0 and 1 weighs both sides.
    """
    positive = -(gamma * F.logsigmoid(-logits)).exp() * F.logsigmoid(logits)
    negative = -(gamma * F.logsigmoid(logits)).exp() * F.logsigmoid(-logits)
    if alpha is not None:
        share = numbers(alpha, logits)
        positive, negative = share * positive, (1 - share) * negative
    return target * positive + (1 - target) * negative


@loss(classes=True)
def softmax_focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: Numbers | None = None) -> Tensor:
    """-alpha_y (1 - p_y)^gamma log p_y. logits [N, C, ...], target int64 [N, ...], alpha [C] -> costs [N, ...]; gamma 0 is cross-entropy."""
    log_p = picked(logits.log_softmax(1), target)
    others = logits.scatter(1, target.unsqueeze(1), NOTHING).logsumexp(1)
    costs = -(gamma * (others - logits.logsumexp(1))).exp() * log_p
    return costs if alpha is None else costs * numbers(alpha, logits)[target]
