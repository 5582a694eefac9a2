"""BatchReindex and Filter: rows of a batch, chosen by another blob."""

from __future__ import annotations

from math import prod

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer


@layer("BatchReindex", bottoms=2, in_place="it would read rows that it has overwritten")
def batch_reindex(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, ...] and indices [M] -> [M, ...]; a row taken twice gets both gradients."""
    rows, index = shapes
    if len(index) != 1 or not rows:
        raise NetError(f"takes rows [N, ...] and indices [M], not {list(rows)} and {list(index)}")
    return Recipe("rows.BatchReindex", {}, ((*index, *rows[1:]),))


@layer(
    "Filter",
    bottoms=(2, None),
    tops=(1, None),
    in_place="it would read rows that it has overwritten",
    onnx="how many rows remain depends on the values",
)
def filter_(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Blobs [N, ...] and a selector [N] -> of each the rows whose selector is not 0. Before any value is known, all N (so says Caffe)."""
    *blobs, selector = shapes
    if len(blobs) != len(layer.tops):
        raise NetError(f"{len(layer.tops)} tops for {len(blobs)} blobs to filter; the last bottom is the selector")
    if not selector or prod(selector[1:]) != 1:
        raise NetError(f"the selector {list(selector)} must hold one value a row")
    for name, shape in zip(layer.bottoms, blobs, strict=False):
        if shape[:1] != selector[:1]:
            raise NetError(f"{name!r} {list(shape)} must have as many rows as the selector {list(selector)}")
    return Recipe("rows.Filter", {}, tuple(blobs))
