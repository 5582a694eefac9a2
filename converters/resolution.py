"""Prototxt -> Graph: the half of a conversion that needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prototxt import Message, NetError
from prototxt.net import net_of, read_net
from prototxt.rules import State

from . import graph as graphs
from .graph import Graph


def resolve(
    prototxt: str | Path | Message,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    strict: bool = True,
) -> Graph:
    """The graph of a prototxt (a path or a message), without torch and without allocating any weights; graph.resolve has the details."""
    state = State(phase, level, tuple(stages))
    net = net_of(prototxt, state) if isinstance(prototxt, Message) else read_net(prototxt, state)
    return graphs.resolve(net, shapes, strict=strict)


def refuse_empty(graph: Graph, path: str | Path) -> None:
    """NetError for a net without layers. Caffe builds it; nobody who inspects or converts a file means it."""
    if not graph.steps and not graph.data_layers:
        empty = Path(path).stat().st_size == 0
        what = "the file is empty" if empty else f"no layer is left in phase {graph.state.phase}; --phase and --stage choose others"
        raise NetError(f"{path}: {what}")
