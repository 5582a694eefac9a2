"""Caffe's Accuracy."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Accuracy(nn.Module):
    """Share of samples whose class is among the top_k; one with an equal score counts as better. No gradient."""

    def __init__(self, axis: int, top_k: int = 1, ignore_label: int | None = None, per_class: bool = False) -> None:
        super().__init__()
        self.axis, self.top_k, self.ignore_label, self.per_class = axis, top_k, ignore_label, per_class

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = x.detach().movedim(self.axis, -1)
        label = label.detach().trunc().long().reshape(x.shape[:-1])
        valid = torch.ones_like(label, dtype=torch.bool) if self.ignore_label is None else label != self.ignore_label
        label = torch.where(valid, label, 0)
        rivals = (x >= x.gather(-1, label[..., None])).sum(-1) - 1  # the true class itself is one of them
        hit = ((rivals < self.top_k) & valid).to(x.dtype)
        accuracy = hit.sum() / valid.to(x.dtype).sum().clamp(min=1)
        if not self.per_class:
            return accuracy
        member = torch.nn.functional.one_hot(label.flatten(), x.shape[-1]).to(x.dtype) * valid.flatten()[:, None]
        return accuracy, (member * hit.flatten()[:, None]).sum(0) / member.sum(0).clamp(min=1)
