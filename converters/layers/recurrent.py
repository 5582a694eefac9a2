"""RNN, LSTM, LSTMUnit and a fork's Lstm: time-major sequences [T, N, ...], whose streams restart where `cont` [T, N] is 0."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import filler, layer

IN_PLACE = "its backward pass needs the input"
FRESH = "the state starts from zero in every pass; Caffe keeps it from the last one, for streams whose first `cont` is not 0"


@layer("RNN", bottoms=(2, 4), tops=(1, 2), in_place=IN_PLACE, differs=FRESH)
def rnn(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x [T, N, ...], cont [T, N] (, static [N, ...]) (, h [1, N, D]) -> outputs [T, N, D] (, last h). The outputs are not the states."""
    features, hidden, static = _sizes(layer, shapes, states=1)
    blobs = _inputs(layer, ("h", hidden, features, static))
    p = layer.spec.recurrent_param
    blobs += (
        ParamBlob("weight_hh", (hidden, hidden), filler(p, "weight_filler")),
        ParamBlob("weight_ho", (hidden, hidden), filler(p, "weight_filler")),
    )
    blobs += (ParamBlob("bias_o", (hidden,), filler(p, "bias_filler")),)
    return _recipe("recurrent.RNN", layer, shapes, (features, hidden, static), blobs)


@layer("LSTM", bottoms=(2, 5), tops=(1, 3), in_place=IN_PLACE, differs=FRESH)
def lstm(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x [T, N, ...], cont [T, N] (, static [N, ...]) (, h and c [1, N, D]) -> h [T, N, D] (, last h and c)."""
    features, hidden, static = _sizes(layer, shapes, states=2)
    blobs = _inputs(layer, ("c", 4 * hidden, features, static))
    blobs += (ParamBlob("weight_hc", (4 * hidden, hidden), filler(layer.spec.recurrent_param, "weight_filler")),)
    return _recipe("recurrent.LSTM", layer, shapes, (features, hidden, static), blobs)


@layer("LSTMUnit", bottoms=3, tops=2)
def lstm_unit(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """One step: c [1, N, D], gates [1, N, 4 D], cont [1, N] -> the next c and h [1, N, D]."""
    cell, gates, cont = shapes
    if len(cell) != 3 or cell[0] != 1 or gates != (1, cell[1], 4 * cell[2]) or cont != cell[:2]:
        raise NetError(f"takes c [1, N, D], gates [1, N, 4 D] and cont [1, N], not {[list(s) for s in shapes]}")
    return Recipe("recurrent.LSTMUnit", {}, (cell, cell), macs=3 * prod(cell))


@layer("Lstm", bottoms=(1, 2), in_place=IN_PLACE, differs=FRESH)
def fork_lstm(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x [T N, ...] (, clip [T N], 0 where a stream restarts) -> [T N, D]; gates input, forget, output, candidate (junhyukoh/caffe-lstm)."""
    p = layer.spec.part("lstm_param")
    hidden = 0 if p is None else p.get("num_output", 0)
    streams = 1 if p is None else p.get("batch_size", 1)
    if not isinstance(hidden, int) or hidden < 1 or not isinstance(streams, int) or streams < 1:
        raise NetError("lstm_param must name num_output, and batch_size if it is not 1")
    x = shapes[0]
    if len(x) == 3 or not x or x[0] % streams or (len(shapes) == 2 and (prod(shapes[1]) != x[0] or shapes[1][:1] != x[:1])):
        raise NetError(f"takes x [T * {streams}, ...] and clip [T * {streams}], not {[list(s) for s in shapes]}; 3 axes are another fork's Lstm")
    features = prod(x[1:])
    args: dict[str, Any] = {"features": features, "hidden": hidden, "streams": streams}
    args |= {"threshold": p.get("clipping_threshold")} if p.get("clipping_threshold", 0) > 0 else {}
    blobs = (
        ParamBlob("weight_x", (4 * hidden, features), filler(p, "weight_filler")),
        ParamBlob("weight_h", (4 * hidden, hidden), filler(p, "weight_filler")),
        ParamBlob("bias", (4 * hidden,), filler(p, "bias_filler")),
    )
    return Recipe("recurrent.ClippedLSTM", args, ((x[0], hidden),), blobs, macs=x[0] * 4 * hidden * (features + hidden))


def _sizes(layer: Layer, shapes: tuple[Shape, ...], *, states: int) -> tuple[int, int, int | None]:
    """Features of x, num_output and features of the static input, if there is one; NetError if the bottoms do not fit each other."""
    p = layer.spec.recurrent_param
    exposed = states if p.expose_hidden else 0
    if p.num_output < 1:
        raise NetError("num_output is missing or 0")
    if not 0 <= len(shapes) - 2 - exposed <= 1 or len(layer.tops) != 1 + exposed:
        what = f"with expose_hidden also {states} state{'s' * (states > 1)} at each end" if exposed else "without expose_hidden no states"
        raise NetError(f"{len(shapes)} bottoms and {len(layer.tops)} tops: it takes x, cont and perhaps a static input, and {what}")
    x, cont, *rest = shapes
    if len(x) < 3 or cont != x[:2]:
        raise NetError(f"takes x [T, N, ...] and cont [T, N], not {list(x)} and {list(cont)}")
    static = rest.pop(0) if len(rest) > exposed else None
    if static is not None and (len(static) < 2 or static[0] != x[1]):
        raise NetError(f"the static input {list(static)} must be [{x[1]}, ...], one row a stream")
    if any(state != (1, x[1], p.num_output) for state in rest):
        raise NetError(f"the states {[list(s) for s in rest]} must be {[1, x[1], p.num_output]}")
    return prod(x[2:]), p.num_output, None if static is None else prod(static[1:])


def _inputs(layer: Layer, sizes: tuple[str, int, int, int | None]) -> tuple[ParamBlob, ...]:
    """W_x, b, and W_static if there is a static input, in Caffe's order. `sizes`: suffix of the names, rows, features of both inputs."""
    name, rows, features, static = sizes
    p = layer.spec.recurrent_param
    weight = filler(p, "weight_filler")
    blobs = (ParamBlob(f"weight_x{name}", (rows, features), weight), ParamBlob(f"bias_{name}", (rows,), filler(p, "bias_filler")))
    return blobs if static is None else (*blobs, ParamBlob("weight_static", (rows, static), weight))


def _recipe(module: str, layer: Layer, shapes: tuple[Shape, ...], sizes: tuple[int, int, int | None], blobs: tuple[ParamBlob, ...]) -> Recipe:
    features, hidden, static = sizes
    args: dict[str, Any] = {"features": features, "hidden": hidden}
    args |= {"static": static} if static is not None else {}
    args |= {"expose_hidden": True} if len(layer.tops) > 1 else {}
    steps, streams = shapes[0][:2]
    macs = streams * sum(prod(b.shape) * (1 if b.name == "weight_static" else steps) for b in blobs if len(b.shape) == 2)
    return Recipe(module, args, ((steps, streams, hidden), *((1, streams, hidden),) * (len(layer.tops) - 1)), blobs, macs)
