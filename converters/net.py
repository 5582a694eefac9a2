"""A converted net in use: its module, its graph, its blobs, its weights. What `converters.load` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from prototxt import Message, NetError
from prototxt.binary import is_binary

from . import weights as files
from .graph import Graph, Value
from .labels import check_fed
from .resolution import resolve
from .to_torch import BlobRecorder, Built, to_torch


class Blobs(dict[str, Tensor]):
    """Blobs by name, each as it was last; `recorded` also has the versions before, which a loss may weigh."""

    def __init__(self, graph: Graph, recorded: Mapping[Value, Tensor]) -> None:
        super().__init__({blob: recorded[value] for blob, value in graph.last.items() if value in recorded})
        for blob, source in graph.views.items():
            if source in recorded:
                self[blob] = recorded[source].reshape(recorded[graph.last[blob]].shape)
        self.recorded = recorded


@dataclass(frozen=True, slots=True)
class CaffeNet:
    """A net of Caffe in PyTorch."""

    graph: Graph
    built: Built

    @property
    def module(self) -> fx.GraphModule:
        """A tensor in, a tensor out where the net has one of each; else inputs in net order and a dict by blob name."""
        return self.built.module

    def __call__(self, *inputs: Tensor) -> Any:
        """The module's outputs; inputs may have another batch or image size than the prototxt's where the layers allow it."""
        return self.module(*inputs)

    def blobs(self, inputs: Mapping[str, Tensor]) -> Blobs:
        """Every blob of one pass, by name; a blob written in place holds its last value.

        NetError if an input is missing; DataError with the sample if a label on the CPU is none of the classes.
        """
        missing = [name for name in self.graph.inputs if name not in inputs]
        known = {top for layer in self.graph.data_layers for top in layer.tops}
        foreign = [name for name in inputs if name not in known]
        if missing or foreign:
            what = f"lacks {missing}" if missing else f"has {foreign}"
            raise NetError(f"the feed {what}; the net's inputs are {list(self.graph.inputs)}")
        empty = [name for name in self.graph.inputs if inputs[name].numel() == 0]
        if empty:
            raise NetError(f"the input {empty[0]!r} of shape {list(inputs[empty[0]].shape)} holds no values")
        check_fed(self.graph, {name: tensor.detach().float().numpy() for name, tensor in inputs.items() if tensor.device.type == "cpu"})
        recorded = BlobRecorder(self.built, self.graph).record(inputs[name] for name in self.graph.inputs)
        fed = {Value(name): inputs[name] for name in self.graph.unused if name in inputs}
        return Blobs(self.graph, recorded | fed)

    def objective(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """Sum of loss_weight * top over all tops that have a weight, 0-d (CASES 18); 0 if none has."""
        recorded = blobs.recorded if isinstance(blobs, Blobs) else {self.graph.last[b]: t for b, t in blobs.items()}
        terms = [recorded[value].sum() * weight for value, weight in self.graph.losses]
        if not terms:
            return next(iter(recorded.values())).new_zeros(())
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def params(self) -> dict[str, list[Tensor]]:
        """{layer: [tensor, ...]} live, in Caffe's order and shape."""
        return files.params(self.graph, self.module)

    def load(self, source: str | Path | Mapping[str, Sequence[Any]]) -> files.Copied:
        """Copy weights by layer name and position, as Caffe does, from a file or {layer: [arrays]}."""
        return files.load(self.graph, self.module, source)

    def save(self, path: str | Path) -> None:
        """Write the weights as .caffemodel, .h5 or .safetensors."""
        files.save(self.graph, self.module, path)


def load(
    prototxt: str | Path | Message,
    weights: str | Path | Mapping[str, Sequence[Any]] | None = None,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> CaffeNet:
    """The net of a prototxt as a torch module. Without weights it is filled by its fillers, from torch's generator.

    A .caffemodel in its place gives the net that it carries, and its weights.
    """
    return filled(resolve(prototxt, phase, stages, level, shapes), prototxt, weights)


def filled(graph: Graph, prototxt: str | Path | Message, weights: str | Path | Mapping[str, Sequence[Any]] | None) -> CaffeNet:
    """The net of a graph with weights, or with those that a .caffemodel in place of the prototxt carries."""
    net = build(graph)
    if weights is None and not isinstance(prototxt, Message) and is_binary(prototxt):
        weights = prototxt
    if weights is not None:
        net.load(weights)
    return net


def build(graph: Graph) -> CaffeNet:
    """The graph as a net, its parameters filled by their fillers."""
    net = CaffeNet(graph, to_torch(graph))
    files.fill(graph, net.module)
    return net
