"""LDAM: rare classes get a larger margin. Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .cross_entropy import target_weights
from .reduction import Numbers, loss, numbers
from .weights import class_weights


def margins(counts: Sequence[float], largest: float = 0.5) -> list[float]:
    """c / n^(1/4) for each class, scaled so that the rarest has `largest`; an absent class has no margin."""
    raw = [n**-0.25 if n > 0 else 0.0 for n in counts]
    return [largest * value / max([*raw, 1e-30]) for value in raw]


@loss(classes=True, weights=target_weights)
def ldam(
    logits: Tensor, target: Tensor, *, counts: Sequence[float], largest: float = 0.5, scale: float = 30.0, weight: Numbers | None = None
) -> Tensor:
    """Cross-entropy of scale * (z - margin_y at y). logits [N, C] are cosines of features and weights (a cosine head), target int64 [N].

    `counts` are the samples of each class. DRW is `weight` from a later epoch on: see `drw_weight`.
    """
    cut = numbers(margins(counts, largest), logits)
    margin = F.one_hot(target, logits.shape[1]).to(logits.dtype) * cut
    weights = None if weight is None else numbers(weight, logits)
    return F.cross_entropy(scale * (logits - margin), target, weight=weights, reduction="none")


def drw_weight(counts: Sequence[float], epoch: int, start: int, beta: float = 0.9999) -> list[float] | None:
    """Deferred re-weighting: no weights before epoch `start`, then those of the effective number."""
    return None if epoch < start else class_weights(counts, "effective", beta=beta)
