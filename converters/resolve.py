"""Prototxt -> Graph: the half of a conversion that needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prototxt import Message
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
) -> Graph:
    """The graph of a prototxt (a path or a message), without torch and without allocating any weights."""
    state = State(phase, level, tuple(stages))
    net = net_of(prototxt, state) if isinstance(prototxt, Message) else read_net(prototxt, state)
    return graphs.resolve(net, shapes)
