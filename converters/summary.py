"""A net as rows for a table: layer, type, output shape, parameters, multiply-adds. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import prod
from pathlib import Path
from typing import Any

from prototxt import WeightsError
from prototxt.files import check_file
from prototxt.models import Model, plain_shape
from prototxt.weights import Weights, fits, read_weights

from .graph import Graph, Step


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
    """How a file of weights fits a net, by layer name. `wrong` says what does not fit, in sentences.

    `renamed` are layers of the net that the file has not, each with the layer that stands in its place there: who fine-tunes gives the last
    layer another name so that it starts anew.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]
    wrong: tuple[str, ...]
    renamed: Mapping[str, str]
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]  # of the layers in the net
    stored: Mapping[str, tuple[tuple[int, ...], ...]]  # of the layers in the file

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("loaded", "kept", "unused", "wrong")}
        return lists | {"renamed": dict(self.renamed)}

    def text(self) -> str:
        """A table for a person: each layer with weights, on either side, and what becomes of it."""
        rows = [(name, "copied" if name in self.loaded else self._left(name), _shapes(self.shapes[name])) for name in self.shapes]
        rows += [(name, "only in the file", _shapes(self.stored[name])) for name in self.unused if name not in self.renamed.values()]
        widths = [max(len(row[i]) for row in [("layer", "weights", ""), *rows]) for i in (0, 1)]
        return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in [("layer", "weights", "shapes"), *rows]) + "\n"

    def _left(self, name: str) -> str:
        if name not in self.renamed:
            return "left as its fillers make it"
        other = self.renamed[name]
        alike = self.shapes[name] == self.stored[other]
        return f"left as its fillers make it; in the file {other} {'of the same shapes' if alike else _shapes(self.stored[other])} stands there"


def fit(graph: Graph, path: str | Path, names: Mapping[str, str] | None = None) -> Fit:
    """Which layers of a file of weights would be copied, and what would not fit; nothing is loaded. `names` renames layers of the file."""
    steps = {step.name: step for step in graph.steps if step.params}
    shapes = {name: tuple(p.blob.shape for p in step.params) for name, step in steps.items()}
    if Path(path).suffix == ".safetensors":
        return _named_fit(steps, shapes, Path(path))
    file: Weights = read_weights(path)
    found = {(names or {}).get(layer.name, layer.name): layer for layer in file if layer.blobs}
    wrong = []
    for name in [name for name in steps if name in found]:
        want, have = shapes[name], found[name].blobs
        if len(want) != len(have) and not file.hdf5:
            wrong.append(f"{name!r} has {len(have)} blobs in the file, {len(want)} in the net")
        wrong += [
            f"{name!r}: blob {i} is {list(blob.shape)} in the file, {list(shape)} in the net"
            for i, (shape, blob) in enumerate(zip(want, have, strict=False))
            if not fits(blob, shape) and (found[name].name, i) not in file.shared
        ]
    return _fit(shapes, {name: tuple(blob.shape for blob in layer.blobs) for name, layer in found.items()}, wrong)


def _named_fit(steps: Mapping[str, Step], shapes: Mapping[str, tuple[tuple[int, ...], ...]], path: Path) -> Fit:
    """Of a .safetensors, whose names are the module's: a layer fits if all of its tensors are there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(check_file(path), framework="np") as f:
            tensors = {key: tuple(f.get_slice(key).get_shape()) for key in f.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, OSError) as exc:
        raise WeightsError(f"{path}: no safetensors file, or a damaged one: {exc}") from exc
    stored: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, step in steps.items():
        order = [param.blob.name for param in step.params]
        own = [key for key in tensors if key.startswith(f"{step.key}.") and key.rpartition(".")[2] in order]
        if own:
            stored[name] = tuple(tensors.pop(key) for key in sorted(own, key=lambda key: order.index(key.rpartition(".")[2])))
    return _fit(shapes, stored | {key: (shape,) for key, shape in tensors.items()}, [])


def _fit(shapes: Mapping[str, tuple[tuple[int, ...], ...]], stored: Mapping[str, tuple[tuple[int, ...], ...]], wrong: list[str]) -> Fit:
    loaded = tuple(n for n in shapes if n in stored)
    kept, unused = tuple(n for n in shapes if n not in stored), tuple(n for n in stored if n not in shapes)
    return Fit(loaded, kept, unused, tuple(wrong), _renamed(list(shapes), list(stored)), shapes, stored)


def _renamed(net: list[str], file: list[str]) -> dict[str, str]:
    """Layers of the net -> layers of the file at the same place: as many of either, between two that both have."""
    pairs: dict[str, str] = {}
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, net, file, autojunk=False).get_opcodes():
        if tag == "replace" and a1 - a0 == b1 - b0:
            pairs.update(zip(net[a0:a1], file[b0:b1], strict=True))
    return pairs


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("x".join(map(str, shape)) or "()" for shape in shapes)


def weights_text(model: Model) -> str:
    """The layers that a .caffemodel carries, with the shapes of their weights: what can be said of it without the shapes of its data."""
    rows = [("layer", "type", "weights", "parameters")]
    for layer in model.layers:
        shapes = tuple(plain_shape(layer.spec.type, i, blob) for i, blob in enumerate(layer.blobs))
        count = sum(map(prod, shapes))
        rows.append((layer.name, layer.spec.type, _shapes(shapes), f"{count:,}" if count else ""))
    total = sum(prod(blob.shape) for layer in model.layers for blob in layer.blobs)
    rows.append(("total", "", "", f"{total:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(_line((a, b, c, d), widths) for a, b, c, d in rows) + "\n"


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
