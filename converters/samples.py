"""Inputs to try a net with: seeded, of the graph's shapes, and with values that the layers behind them can take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph import Graph, Step, Value
from .labels import labels_of
from .recipe import Shape

if TYPE_CHECKING:
    from torch import Tensor

_PASSING = ("Slice", "Split", "Reshape", "Flatten", "Concat", "Silence", "Crop")


def sample_inputs(graph: Graph, batch: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """{blob: tensor} in net order: N(0, 1), or whole numbers where a label or an index is read. `batch` replaces axis 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for blob in graph.inputs:
        shape = _sized(graph.values[Value(blob)], batch)
        classes = _classes(graph, Value(blob))
        if classes:
            inputs[blob] = torch.randint(0, classes, shape, generator=generator).float()
        else:
            inputs[blob] = torch.randn(shape, generator=generator)
    return inputs


def _sized(shape: Shape, batch: int | None) -> Shape:
    return (batch, *shape[1:]) if batch is not None and shape else shape


def _classes(graph: Graph, value: Value) -> int:
    """How many classes a label blob may name; 0 if it is not one."""
    found = []
    for step in graph.steps:
        for i, bottom in enumerate(step.bottoms):
            if bottom != value:
                continue
            if step.type in _PASSING:
                found += [_classes(graph, top) for top in step.tops]
            else:
                found.append(_classes_of(step, i))
    return min((n for n in found if n), default=0)


def _classes_of(step: Step, i: int) -> int:
    labels = labels_of(step)
    if labels is not None and i == 1:
        return labels.classes
    if step.type == "Embed":
        return int(step.params[0].blob.shape[0])
    if (step.type in ("LSTM", "RNN") and i == 1) or (step.type in ("ContrastiveLoss", "LSTMUnit", "Filter") and i == 2):
        return 2
    return 0
