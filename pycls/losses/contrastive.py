"""Contrastive loss as Caffe has it: d^2 of a similar pair, max(margin - d, 0)^2 of another, over twice the number of pairs.

Hadsell, Chopra & LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006. The legacy form is max(margin - d^2, 0); the
gradient of a dissimilar pair divides by d + 1e-4.
"""

from __future__ import annotations

from torch import Tensor

from converters.modules.losses import ContrastiveLoss

from ..miners import all_pairs


def contrastive_loss(a: Tensor, b: Tensor, similar: Tensor, *, margin: float = 1.0, legacy: bool = False) -> Tensor:
    """Features a, b [N, D] and 1 for a similar pair [N] -> 0-d; without a pair 0, connected to the graph."""
    if not len(a):
        return (a.sum() + b.sum()).float()
    return ContrastiveLoss(margin, legacy)(a.float(), b.float(), similar)


def contrastive_of_batch(features: Tensor, classes: Tensor, *, margin: float = 1.0, legacy: bool = False) -> Tensor:
    """The loss over every pair of rows: features [N, D], classes [N]; a class below 0 is missing."""
    i, j = all_pairs(classes)
    return contrastive_loss(features[i], features[j], classes[i] == classes[j], margin=margin, legacy=legacy)
