"""Inputs to try a net with: seeded, of the graph's shapes, and with values that the layers behind them can take."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from .graph import Graph, Step, Value
from .labels import labels_of
from .recipe import Shape

if TYPE_CHECKING:
    from torch import Tensor

# Modules that read rows: the bottom, the length of a row, its column of an image (-1: none) and that of a label.
_ROWS = {
    "regions.RoiPool": ((1, 5, 0, -1),), "regions.PositionSensitiveRoiPool": ((1, 5, 0, -1),),
    "regions.ProposalTargets": ((0, 5, 0, -1), (1, 5, -1, 4)), "detection.MultiBoxLoss": ((3, 8, 0, 1),),
    "detection.DetectionEvaluate": ((0, 7, 0, 1), (1, 8, 0, 1)),
}  # fmt: skip
_PASSING = ("Slice", "Split", "Reshape", "Flatten", "Concat", "Silence", "Crop")


def sample_inputs(graph: Graph, batch: int | None = None, seed: int = 0) -> dict[str, Tensor]:
    """{blob: tensor} in net order: N(0, 1), or whole numbers where a label or an index is read. `batch` replaces axis 0.

    Boxes are all of the first image, and of one class that is not the background.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for blob in graph.inputs:
        shape = _sized(graph.values[Value(blob)], batch)
        readers = list(_readers(graph, Value(blob)))
        classes = min((n for step, i in readers if (n := _classes_of(step, i))), default=0)
        if classes:
            inputs[blob] = torch.randint(0, classes, shape, generator=generator).float()
        else:
            inputs[blob] = torch.randn(shape, generator=generator)
        for step, i in readers:
            for bottom, length, image, label in _ROWS.get(str(step.recipe.module), ()):
                if bottom == i and prod(shape) % length == 0:
                    _name(inputs[blob].view(-1, length), image, label, int(step.recipe.args.get("background", 0)))
    return inputs


def _name(rows: Tensor, image: int, label: int, background: int) -> None:
    """Write an image and a label into rows, where they have columns."""
    if image >= 0:
        rows[:, image] = 0
    if label >= 0:
        rows[:, label] = 0 if background else 1


def _sized(shape: Shape, batch: int | None) -> Shape:
    return (batch, *shape[1:]) if batch is not None and shape else shape


def _readers(graph: Graph, value: Value) -> Iterator[tuple[Step, int]]:
    """The steps that read a blob, and as which bottom; also behind those that only reshape or cut it."""
    for step in graph.steps:
        for i, bottom in enumerate(step.bottoms):
            if bottom != value:
                continue
            if step.type in _PASSING:
                for top in step.tops:
                    yield from _readers(graph, top)
            else:
                yield step, i


def _classes_of(step: Step, i: int) -> int:
    """How many classes a layer's bottom may name; 0 if it names none."""
    labels = labels_of(step)
    if labels is not None and i == 1:
        return labels.classes
    if step.type == "Embed":
        return int(step.params[0].blob.shape[0])
    if (step.type in ("LSTM", "RNN") and i == 1) or (step.type in ("ContrastiveLoss", "LSTMUnit", "Filter") and i == 2):
        return 2
    return 0
