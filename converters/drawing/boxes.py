"""A graph as boxes for a picture: a layer and those that rewrite its blob in place share one, so that a convolution, its BatchNorm, Scale
and ReLU are four rows of one box. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ..graph import DataLayer, Graph, Step, Value
from ..recipe import Shape
from ..registry import rules

FAMILIES = {  # a file of converters/layers -> what a colour of the picture stands for; whatever else, plug-ins too, is "other"
    "data": "data",
    "convolution": "weights",
    "linear": "weights",
    "recurrent": "weights",
    "normalization": "norm",
    "scale": "norm",
    "pooling": "pool",
    "activation": "activation",
    "softmax": "activation",
    "losses": "head",
    "metrics": "head",
    "detection": "head",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: first those that feed the net, then the steps. Blobs go by name, `conv1@0` before a layer writes `conv1` in place.

    `detail` is the kernel and stride, or the operation; `source` the expression that builds its module; `place` is file:line. A layer
    that is `in_place` rewrites its only bottom.
    """

    name: str
    type: str
    family: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[Shape, ...]
    detail: str = ""
    source: str = ""
    place: str = ""
    in_place: bool = False
    params: tuple[Shape, ...] = ()
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """A layer and those that work in place on its blob, as indices of rows; `outputs` are the net's outputs that it makes."""

    rows: tuple[int, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Boxes:
    """A net for a picture. `edges` are (source, target) indices into `boxes`, source before target, each once."""

    name: str
    rows: tuple[Row, ...]
    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


def boxes(graph: Graph) -> Boxes:
    """All layers of a graph, in its order."""
    names, last = graph.value_names, graph.last
    fed = [_fed(data, graph, names) for data in graph.data_layers]
    return boxed(graph.name, [*fed, *(_row(step, names) for step in graph.steps)], [names[last[blob]] for blob in graph.outputs])


def boxed(name: str, rows: Iterable[Row], outputs: Iterable[str]) -> Boxes:
    """Boxes of rows in order of execution; a bottom that no row makes is an input from outside, and draws no line."""
    rows = tuple(rows)
    made: list[list[int]] = []
    home: dict[str, int] = {}
    edges: dict[tuple[int, int], None] = {}
    for i, row in enumerate(rows):
        if row.in_place and row.bottoms[0] in home:
            box = home[row.bottoms[0]]
            made[box].append(i)
        else:
            box = len(made)
            made.append([i])
            edges.update(dict.fromkeys((home[bottom], box) for bottom in row.bottoms if bottom in home))
        home.update(dict.fromkeys(row.tops, box))
    leaving: list[list[str]] = [[] for _ in made]
    for blob in outputs:
        if blob in home:
            leaving[home[blob]].append(blob)
    return Boxes(name, rows, tuple(Box(tuple(inner), tuple(out)) for inner, out in zip(made, leaving, strict=True)), tuple(edges))


def _fed(data: DataLayer, graph: Graph, names: Mapping[Value, str]) -> Row:
    tops = [Value(top) for top in data.tops]
    shapes = tuple(graph.values[top] for top in tops)
    return Row(data.name or ", ".join(data.tops), data.type, "data", (), tuple(names[top] for top in tops), shapes, place=data.layer.place)


def _row(step: Step, names: Mapping[Value, str]) -> Row:
    own = [p.blob.shape for p in step.params if p.owner is None]
    return Row(
        step.name,
        step.type,
        family_of(step.type),
        tuple(names[bottom] for bottom in step.bottoms),
        tuple(names[top] for top in step.tops),
        step.shapes,
        _detail(step),
        step.recipe.source(),
        step.place,
        [bottom.blob for bottom in step.bottoms] == [top.blob for top in step.tops] and len(step.tops) == 1,
        tuple(p.blob.shape for p in step.params),
        sum(map(prod, own)),
        step.recipe.macs,
    )


def family_of(kind: str) -> str:
    """The family of a layer type, by the file of converters/layers that has its rule."""
    rule = rules().get(kind)
    home, _, file = rule.make.__module__.rpartition(".") if rule else ("", "", "")
    return FAMILIES.get(file, "other") if home == "converters.layers" else "other"


def _detail(step: Step) -> str:
    args = step.recipe.args
    if "kernel_size" not in args:
        return step.recipe.class_name.lower() if step.type == "Eltwise" else ""
    kernel, stride, groups = _extent(args["kernel_size"]), _extent(args.get("stride", 1)), args.get("groups", 1)
    parts = [kernel if "x" in kernel or len(step.shapes[0]) != 4 else f"{kernel}x{kernel}"]
    parts += [f"/{stride}"] if stride != "1" else []
    parts += [f"{groups} groups"] if groups != 1 else []
    return " ".join(parts)


def _extent(size: Any) -> str:
    """3 or (3, 3) -> "3", (1, 3) -> "1x3"."""
    if not isinstance(size, tuple):
        return str(size)
    return str(size[0]) if len(set(size)) == 1 else "x".join(map(str, size))
