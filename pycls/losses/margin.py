"""Margin softmax: the class weights and the features lie on a sphere, and the true class must win by a margin.

ArcFace  s cos(theta_y + m)     Deng et al. 2019
CosFace  s (cos theta_y - m)    Wang et al. 2018
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prototxt import SolverError


class MarginSoftmax(nn.Module):
    """Cross-entropy of scaled cosines where the true class has a margin; margin 0.5 for arcface and 0.35 for cosface by default."""

    def __init__(self, classes: int, features: int, *, kind: str = "arcface", margin: float | None = None, scale: float = 64.0) -> None:
        super().__init__()
        if kind not in MARGINS:
            raise SolverError(f"margin softmax: kind is {' or '.join(MARGINS)}, not {kind!r}")
        self.kind, self.scale = kind, scale
        self.margin = {"arcface": 0.5, "cosface": 0.35}[kind] if margin is None else margin
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, features)))

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] -> scaled cosines [N, C] without a margin: what inference takes."""
        return self.scale * self._cosines(features)

    def forward(self, features: Tensor, classes: Tensor, divisor: Tensor | None = None) -> Tensor:
        """Features [N, D] and classes [N] -> the loss over `divisor`, 0-d; by default over the rows whose class is known (0 or above)."""
        cosine = self._cosines(features)
        rows = classes.clamp(min=0).long()[:, None]
        target = cosine.gather(1, rows)
        logits = self.scale * cosine.scatter(1, rows, MARGINS[self.kind](target, self.margin))
        each = F.cross_entropy(logits, rows.squeeze(1), reduction="none")
        known = classes >= 0
        return torch.where(known, each, 0).sum() / (known.sum().clamp(min=1) if divisor is None else divisor)

    def _cosines(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(features.to(self.weight.dtype)) @ F.normalize(self.weight).T


def arcface(cosine: Tensor, margin: float) -> Tensor:
    """cos(theta + m); past pi, where that would rise again, cos(theta) - m sin(m). Its gradient is finite at cos = +-1."""
    sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine >= math.cos(math.pi - margin), turned, cosine - margin * math.sin(margin))


def cosface(cosine: Tensor, margin: float) -> Tensor:
    """cos(theta) - m."""
    return cosine - margin


MARGINS = {"arcface": arcface, "cosface": cosface}
