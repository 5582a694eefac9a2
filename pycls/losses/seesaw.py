"""Seesaw loss: a rare class is pushed down less by samples of frequent ones. Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, 2021.

The paper counts the samples as it trains; here the counts are those of the training set, so that the function is pure.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .reduction import Numbers, loss, numbers


@loss(classes=True)
def seesaw(logits: Tensor, target: Tensor, *, counts: Numbers, p: float = 0.8, q: float = 2.0) -> Tensor:
    """Cross-entropy of z_j + log S_yj for j != y. logits [N, C], target int64 [N], counts [C] -> costs [N].

    S_yj = min(1, (n_j / n_y)^p) * max(1, (s_j / s_y)^q), s the softmax scores, without gradient.
    """
    log_n = numbers(counts, logits).clamp(min=1).log()
    mitigation = (p * (log_n - log_n[target].unsqueeze(1))).clamp(max=0)
    scores = logits.detach().log_softmax(1)
    compensation = (q * (scores - scores.gather(1, target.unsqueeze(1)))).clamp(min=0)  # 0 at the target itself
    return F.cross_entropy(logits + mitigation + compensation, target, reduction="none")
