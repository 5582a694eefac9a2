"""A few layers alone: the steps that lead from blobs which agree to one that does not, run again as the prototxt has them, or changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import Graph, Step, Value
from ..net import CaffeNet, build
from .results import FLOOR

Run = Callable[[Sequence[Tensor]], Any]  # the bottoms that the module takes -> its tops


@dataclass(frozen=True, slots=True)
class Segment:
    """`steps`, in order, make `target` out of `sources`."""

    steps: tuple[Step, ...]
    sources: tuple[Value, ...]
    target: Value


def segment(graph: Graph, target: Value, known: Collection[Value]) -> Segment:
    """The steps between the `known` values and `target`; the graph's inputs are known too."""
    makers = {top: i for i, step in enumerate(graph.steps) for top in step.tops}
    needed, sources, left = set[int](), set[Value](), [target]
    while left:
        value = left.pop()
        if (value in known and value != target) or value not in makers:
            sources.add(value)
        elif makers[value] not in needed:
            needed.add(makers[value])
            left += [graph.steps[makers[value]].bottoms[i] for i in graph.steps[makers[value]].reads]
    ordered = tuple(value for value in graph.values if value in sources)
    return Segment(tuple(graph.steps[i] for i in sorted(needed)), ordered, target)


class Replay:
    """The layers of a net in eval mode on the CPU, built anew from the graph, with the net's weights."""

    def __init__(self, net: CaffeNet) -> None:
        self.graph = net.graph
        fresh = build(net.graph)
        fresh.load({layer: [p.detach().float().cpu() for p in params] for layer, params in net.params().items()})
        self.net = fresh
        fresh.module.eval()

    def module(self, step: Step) -> nn.Module:
        """The module of a step."""
        return self.net.module.get_submodule(step.key)

    def values(self, part: Segment, given: Mapping[Value, Tensor], changed: Mapping[str, Run] | None = None) -> dict[Value, Tensor]:
        """Every value of the segment; `changed` has other functions for some steps, by key."""
        found = dict(given)
        with torch.no_grad():
            for step in part.steps:
                bottoms = [found[step.bottoms[i]] for i in step.reads]
                run = (changed or {}).get(step.key)
                made = run(bottoms) if run else self.module(step)(*bottoms)
                found.update(zip(step.tops, made if isinstance(made, (tuple, list)) else (made,), strict=False))
        return found

    def target(self, part: Segment, given: Mapping[Value, Tensor], changed: Mapping[str, Run] | None = None) -> Tensor:
        """What the segment is there for."""
        return self.values(part, given, changed)[part.target]


def apart(got: Tensor, want: Tensor) -> float:
    """The proof card's error, in float64; inf where shapes differ or something is not finite."""
    if got.shape != want.shape:
        return float("inf")
    if not want.numel():
        return 0.0
    worst = float((got.double() - want.double()).abs().max())
    peak = float(want.double().abs().max())
    error = worst / max(peak, FLOOR)
    return error if math.isfinite(error) else float("inf")
