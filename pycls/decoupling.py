"""Two stages for unbalanced data: learn the trunk as the data come, then only the classifier, balanced.

Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, 2020.

retrain(model, "species")                                cRT: freeze the trunk, new head; then train it class-balanced
scale_only(model, "species")                             LWS: freeze the head's weights too, learn one factor a class
normalize(model, "species", tau)                         no training; tau is chosen on validation data
nearest_means(model, "species", features, classes)       no training either: a class is where its features' mean is
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prototxt.errors import TaskError

from .heads import MultiTaskModel


class ScaledHead(nn.Module):
    """A linear head that does not learn, times a factor a class that does: features [N, D] -> [N, C]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = copy.deepcopy(linear).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(linear.out_features, device=linear.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes [N, D] -> [N, C]."""
        return self.linear(x) * self.scale


class MeansHead(nn.Module):
    """Scores by the distance to the mean of each class: minus half its square, the part that does not differ left out. [N, D] -> [N, C]."""

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)

    means: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Shapes [N, D] -> [N, C]; the largest is the nearest."""
        return F.linear(F.normalize(x), self.means, -self.means.square().sum(1) / 2)


def retrain(model: MultiTaskModel, name: str) -> None:
    """Freeze the trunk, its BatchNorm in eval mode, and start the head of a task anew; train it with a class-balanced sampler."""
    linear = linear_head(model, name)
    _only_head(model, name)
    linear.reset_parameters()


def scale_only(model: MultiTaskModel, name: str) -> None:
    """Freeze the trunk and the head's weights, and give the head a factor for each class to learn."""
    linear = linear_head(model, name)
    _only_head(model, name)
    model.heads[model.keys[name]] = ScaledHead(linear)


@torch.no_grad()
def normalize(model: MultiTaskModel, name: str, tau: float = 1.0) -> None:
    """w_c <- w_c / |w_c|^tau, and no bias; 0 leaves the weights as they are."""
    linear = linear_head(model, name)
    linear.weight /= linear.weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau
    if linear.bias is not None:
        linear.bias.zero_()


def nearest_means(model: MultiTaskModel, name: str, features: Tensor, classes: Tensor) -> None:
    """Put the means of the features [N, D], made unit length, by class [N] in place of the head. A class without samples is never the nearest."""
    outputs = model.task(name).outputs
    counts = torch.bincount(classes, minlength=outputs)
    sums = torch.zeros(outputs, features.shape[1], dtype=features.dtype, device=features.device).index_add(0, classes, F.normalize(features))
    means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), 1e3)
    model.heads[model.keys[name]] = MeansHead(means)


def _only_head(model: MultiTaskModel, name: str) -> None:
    """Nothing before the head of a task learns: neither the trunk nor the hidden layers of its branch."""
    model.freeze()
    model.neck(name).requires_grad_(False)


def linear_head(model: MultiTaskModel, name: str) -> nn.Linear:
    """The head of a task, if it is one that can be decoupled; else TaskError."""
    head = model.head(name)
    if model.task(name).kind != "multiclass" or not isinstance(head, nn.Linear):
        raise TaskError(f"the head of {name!r} is not the plain linear one of a multiclass task, which decoupling works on")
    return head
