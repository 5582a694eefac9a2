"""The few layers that a net of data may have behind its data layers: those without parameters, element by element, in numpy.

A net is run as far as an HDF5Output layer needs it, and where a DummyData blob is written in place, since Caffe keeps what was written
(conformance: data/hdf5_output, data/dummy_constant_written_in_place). Everything else is the business of who runs the net.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..net import Layer, Net

Array = np.ndarray[Any, Any]


def needed(net: Net, fed: dict[str, str]) -> list[Layer]:
    """The layers to run: those that lead to an HDF5Output, and in-place ones on blobs of DummyData. `fed` is the type of layer by blob."""
    wanted: set[str] = set()
    chosen = []
    for layer in reversed(net.layers):
        sink = layer.type == "HDF5Output"
        if sink or (layer.bottoms and wanted.intersection(layer.tops)):
            chosen.append(layer)
            wanted.update(layer.bottoms)
    kept = {blob for blob, type_ in fed.items() if type_ == "DummyData"}
    in_place = [layer for layer in net.layers if len(layer.bottoms) == 1 and layer.bottoms == layer.tops and layer.bottoms[0] in kept]
    return [layer for layer in net.layers if layer in chosen or layer in in_place]


def run(layer: Layer, blobs: dict[str, Array]) -> bool:
    """Compute a layer's tops into `blobs`; False if it is none of those known here, or lacks a bottom."""
    if layer.type not in _LAYERS or any(bottom not in blobs for bottom in layer.bottoms) or len(layer.bottoms) != 1:
        return False
    value = _LAYERS[layer.type](blobs[layer.bottoms[0]], layer.spec)
    blobs.update((top, np.asarray(value, np.float32)) for top in layer.tops)
    return True


def _relu(x: Array, spec: Any) -> Array:
    return np.maximum(x, 0) + np.float32(spec.relu_param.negative_slope) * np.minimum(x, 0)


def _power(x: Array, spec: Any) -> Array:
    p = spec.power_param
    return (np.float32(p.scale) * x + np.float32(p.shift)) ** np.float32(p.power)


def _exp(x: Array, spec: Any) -> Array:
    p = spec.exp_param
    base = 1.0 if p.base == -1 else np.log(p.base)
    return np.exp(np.float32(base) * (np.float32(p.scale) * x + np.float32(p.shift)))


def _log(x: Array, spec: Any) -> Array:
    p = spec.log_param
    base = 1.0 if p.base == -1 else np.log(p.base)
    return np.log(np.float32(p.scale) * x + np.float32(p.shift)) / np.float32(base)


def _reduction(x: Array, spec: Any) -> Array:
    p = spec.reduction_param
    axis = p.axis + x.ndim if p.axis < 0 else p.axis
    rows = x.reshape(*x.shape[:axis], -1)
    reduce: dict[str, Callable[[Array], Array]] = {
        "SUM": lambda r: r.sum(-1),
        "ASUM": lambda r: np.abs(r).sum(-1),
        "SUMSQ": lambda r: (r * r).sum(-1),
        "MEAN": lambda r: r.mean(-1),
    }
    return reduce[p.operation](rows) * np.float32(p.coeff)


def _flatten(x: Array, spec: Any) -> Array:
    p = spec.flatten_param
    first, last = (axis + x.ndim if axis < 0 else axis for axis in (p.axis, p.end_axis))
    return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])


def _elu(x: Array, spec: Any) -> Array:
    return np.maximum(x, 0) + np.float32(spec.elu_param.alpha) * np.expm1(np.minimum(x, 0))


_LAYERS: dict[str, Callable[[Array, Any], Array]] = {
    "AbsVal": lambda x, spec: np.abs(x),
    "BNLL": lambda x, spec: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "Clip": lambda x, spec: np.clip(x, np.float32(spec.clip_param.min), np.float32(spec.clip_param.max)),
    "ELU": _elu,
    "Exp": _exp,
    "Flatten": _flatten,
    "Log": _log,
    "Power": _power,
    "ReLU": _relu,
    "Reduction": _reduction,
    "Sigmoid": lambda x, spec: 0.5 * np.tanh(0.5 * x) + 0.5,
    "Split": lambda x, spec: x,
    "TanH": lambda x, spec: np.tanh(x),
    "Threshold": lambda x, spec: x > np.float32(spec.threshold_param.threshold),
}
