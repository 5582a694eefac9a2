"""What gradients are compared of: the net's own losses, or where it has none, the sum of its outputs times seeded weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ..graph import Graph
    from ..net import CaffeNet

Array = np.ndarray[Any, Any]


def seeded(shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """{output: weights drawn from N(0, 1), seed 0}: the gradient that each output gets."""
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(tuple(shape)).astype(np.float32) for name, shape in shapes.items()}


def driven(graph: Graph) -> list[str]:
    """layer/index of the parameter blobs that get a gradient in Caffe: those that are learned, and not with lr_mult 0."""
    return [f"{s.name}/{i}" for s in graph.steps for i, p in enumerate(s.params) if p.blob.learned and p.spec.lr_mult != 0]


def objective_of(net: CaffeNet, blobs: Mapping[str, Tensor]) -> Tensor:
    """The scalar that the backward pass starts from."""
    import torch

    if net.graph.losses:
        return net.objective(blobs)
    weights = seeded({name: blobs[name].shape for name in net.graph.outputs})
    return torch.stack([(blobs[name] * torch.from_numpy(weights[name]).to(blobs[name])).sum() for name in net.graph.outputs]).sum()
