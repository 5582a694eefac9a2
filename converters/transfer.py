"""One file of weights becomes another: .caffemodel, .h5, .safetensors, .pt; solver states, .solverstate and .solverstate.h5.

Caffe's own formats need no module, and no torch: layers and blobs go over as they are. PyTorch's have the module's names, which the net tells:
the one that a .caffemodel carries, or a prototxt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING

from prototxt import NetError, WeightsError
from prototxt.files import check_file
from prototxt.models import Model, read_model, with_raw_input, with_rgb_input, write_model
from prototxt.net import Net, read_net
from prototxt.rules import State
from prototxt.weights import LayerBlobs, Weights

from . import graph as graphs
from .graph import Graph
from .summary import Fit, fit

if TYPE_CHECKING:
    from .net import CaffeNet

CAFFE, TORCH, STATES = (".caffemodel", ".h5"), (".safetensors", ".pt", ".pth"), (".solverstate", ".solverstate.h5")


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for beyond the two files. `rename` is {name in the file: name in the result}; `image` is the blob that rgb and mean concern."""

    net: Path | None = None
    phase: str = "TEST"
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    rgb: bool = False
    mean: tuple[float, ...] = ()
    scale: float = 1.0
    image: str = ""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What was written: how many layers with blobs (or history blobs of a state) and values; with a prototxt, how the file fits it."""

    blobs: int
    values: int
    layers: int = 0
    fit: Fit | None = None

    def __bool__(self) -> bool:
        return self.fit is None or not self.fit.kept


def transfer(source: Path, target: Path, options: Options) -> Transferred:
    """Write `target` from `source`, by their suffixes; all or nothing. WeightsError says what does not fit, with both shapes."""
    check_file(source)
    if _is_state(source) or _is_state(target):
        return _state(source, target)
    if target.suffix not in CAFFE + TORCH:
        raise WeightsError(f"{target}: weights are written as {', '.join(CAFFE + TORCH)}, states as {', '.join(STATES)}")
    net = read_net(options.net, State(options.phase)) if options.net else None
    graph = graphs.resolve(net, options.shapes) if net is not None else None
    model, fitted = _read(source, net, graph, options)
    if not all(map(isfinite, (*options.mean, options.scale))):
        raise WeightsError(f"mean {list(options.mean)} and scale {options.scale} cannot go into weights: they must be finite numbers")
    if options.mean or options.scale != 1.0:
        model = with_raw_input(model, options.mean or (0.0,), options.scale, options.image)
    if options.rgb:
        model = with_rgb_input(model, options.image)
    if target.suffix in TORCH:
        model = _write_torch(target, model, graph or _carried(source, options), partial=graph is not None)
    else:
        write_model(target, model)
    blobs = [blob for layer in model.layers for blob in layer.blobs]
    return Transferred(len(blobs), sum(prod(b.shape) for b in blobs), sum(1 for layer in model.layers if layer.blobs), fitted)


def _is_state(path: Path) -> bool:
    return path.name.endswith(STATES)


def _state(source: Path, target: Path) -> Transferred:
    from prototxt.states import read_state, write_state

    if not _is_state(target):
        raise WeightsError(f"{target}: {source} is the state of a solver, which becomes {' or '.join(STATES)}")
    state = read_state(source)
    write_state(target, state)
    return Transferred(len(state.history), sum(array.size for array in state.history))


def _read(source: Path, net: Net | None, graph: Graph | None, options: Options) -> tuple[Model, Fit | None]:
    """The model in the source; with a net, in the net's layers and shapes, and how it fits."""
    if source.suffix in TORCH:
        if graph is None:
            raise WeightsError(f"{source}: its tensors have a module's names; give the net's prototxt by --net")
        if options.rename:
            raise WeightsError(f"{source}: --rename is for Caffe's formats; here the names are the module's own")
        return _read_torch(source, graph), fit(graph, source)
    model = read_model(source, net, options.rename)
    names = Counter(layer.name for layer in model.layers)
    twice = next((new for new in options.rename.values() if names[new] > 1), None)
    if twice is not None:
        raise WeightsError(f"{source}: --rename would make two layers {twice!r}; rename the other one, too")
    if graph is None:
        return model, None
    fitted = fit(graph, source, options.rename)
    if fitted.wrong:
        raise WeightsError(f"{source}: " + "; ".join(fitted.wrong))
    if fitted.shapes and not fitted.loaded:
        raise WeightsError(f"{source}: none of its layers has a name of the net's; these are weights of another net\n{fitted.text()}")
    layers = []
    for layer in model.layers:
        shapes = fitted.shapes.get(layer.name, ())
        layers.append(replace(layer, blobs=tuple(replace(b, shape=s, legacy=False) for b, s in zip(layer.blobs, shapes, strict=False))))
    return replace(model, layers=tuple(layers)), fitted


def _carried(source: Path, options: Options) -> Graph:
    try:
        return graphs.resolve(read_net(source, State(options.phase)), options.shapes)
    except NetError as exc:
        raise WeightsError(f"{exc}\na module's names come from its net: give its shapes by --shape, or its deploy prototxt by --net") from exc


def _read_torch(source: Path, graph: Graph) -> Model:
    from .weights import model_of

    net = _filled(graph)
    net.load(source)
    return model_of(graph, net.module, source)


def _write_torch(target: Path, model: Model, graph: Graph, *, partial: bool) -> Model:
    """What was written. Layers without weights are as their fillers make them, if the file may be a `partial` one."""
    from .weights import load, model_of

    net = _filled(graph)
    stored = tuple(LayerBlobs(layer.name, layer.spec.type, layer.blobs) for layer in model.layers if layer.blobs)
    copied = load(graph, net.module, Weights(model.path, stored))
    if copied.kept and not partial:
        names = ", ".join(map(repr, copied.kept[:6])) + (", ..." if len(copied.kept) > 6 else "")
        raise WeightsError(
            f"{model.path}: has no weights for {names} of the net that it carries, and {target.suffix} holds all layers; --net with the net's "
            "prototxt leaves such layers as their fillers make them, and says so"
        )
    net.save(target)
    return model_of(graph, net.module, target)


def _filled(graph: Graph) -> CaffeNet:
    """The net, filled by its fillers: the same values in every run."""
    import torch

    from .net import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(graph)
