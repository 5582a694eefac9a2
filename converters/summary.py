"""A net as rows for a table: layer, type, output shape, parameters, multiply-adds. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from prototxt.weights import Weights, fits, read_weights

from .graph import Graph


@dataclass(frozen=True, slots=True)
class Row:
    """One layer. A parameter that is shared counts where it is owned."""

    name: str
    type: str
    tops: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    macs: int


def rows(graph: Graph) -> list[Row]:
    """All layers in the order of the file: first those that feed the net, then the steps."""
    fed = [Row(d.name, d.type, d.tops, tuple(graph.blob_shapes[t] for t in d.tops), 0, 0) for d in graph.data_layers]
    return fed + [
        Row(
            step.name,
            step.type,
            tuple(top.blob for top in step.tops),
            step.shapes,
            sum(prod(p.blob.shape) for p in step.params if p.owner is None),
            step.recipe.macs,
        )
        for step in graph.steps
    ]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a file of weights fits a net, by layer name. `wrong` says what does not fit, in sentences."""

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]
    wrong: tuple[str, ...]


def fit(graph: Graph, path: str | Path) -> Fit:
    """Which layers of a .caffemodel or .h5 would be copied, and what would not fit; nothing is loaded."""
    file: Weights = read_weights(path)
    steps = {step.name: step for step in graph.steps if step.params}
    found = {layer.name: layer for layer in file if layer.blobs}
    wrong = []
    for name in steps.keys() & found.keys():
        want, have = [p.blob.shape for p in steps[name].params], found[name].blobs
        if len(want) != len(have) and not file.hdf5:
            wrong.append(f"{name!r} has {len(have)} blobs in the file, {len(want)} in the net")
        wrong += [
            f"{name!r}: blob {i} is {list(blob.shape)} in the file, {list(shape)} in the net"
            for i, (shape, blob) in enumerate(zip(want, have, strict=False))
            if not fits(blob, shape) and (name, i) not in file.shared
        ]
    return Fit(
        tuple(n for n in steps if n in found), tuple(n for n in steps if n not in found), tuple(n for n in found if n not in steps), tuple(wrong)
    )


def to_dict(graph: Graph) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "name": graph.name,
        "phase": graph.state.phase,
        "inputs": {b: list(graph.blob_shapes[b]) for b in graph.inputs},
        "outputs": {b: list(graph.blob_shapes[b]) for b in graph.outputs},
        "parameters": graph.parameters,
        "macs": graph.macs,
        "layers": [
            {"name": r.name, "type": r.type, "tops": list(r.tops), "shapes": [list(s) for s in r.shapes], "parameters": r.parameters, "macs": r.macs}
            for r in rows(graph)
        ],
        "notes": list(graph.notes),
    }


def text(graph: Graph, width: int = 120) -> str:
    """The table for a person, in plain characters; long names are cut in the middle."""
    table = [("layer", "type", "output", "parameters", "multiply-adds")]
    for row in rows(graph):
        shapes = "  ".join("x".join(map(str, s)) or "()" for s in row.shapes) or "-"
        table.append((row.name, row.type, shapes, f"{row.parameters:,}" if row.parameters else "", f"{row.macs:,}" if row.macs else ""))
    table.append(("total", "", "", f"{graph.parameters:,}", f"{graph.macs:,}"))
    fixed = sum(max(len(r[i]) for r in table) for i in (1, 3, 4)) + 8
    room = max(24, width - fixed)
    name = min(max(len(r[0]) for r in table), room // 2)
    output = min(max(len(r[2]) for r in table), max(room - name, 12))
    widths = [name, max(len(r[1]) for r in table), output, max(len(r[3]) for r in table), max(len(r[4]) for r in table)]
    lines = [_line(r, widths) for r in table]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]) + "\n"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [_cut(cell, w).ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()


def _cut(cell: str, width: int) -> str:
    cell = "".join(c if c.isprintable() else "?" for c in cell)
    return cell if len(cell) <= width else f"{cell[: (width - 1) // 2]}~{cell[len(cell) - width // 2 :]}"
