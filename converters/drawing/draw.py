"""`decant draw`: a net as a file, SVG or a page, by the file's ending."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from prototxt import FileProblem
from prototxt.files import write_file

from ..graph import Graph
from .boxes import boxes
from .page import drawing_page
from .svg import svg


def draw(graph: Graph, path: str | Path, lacking: Collection[str] = ()) -> Path:
    """Write the picture of a graph; FileProblem for an ending that is neither .svg nor .html. Layers that lack weights are marked."""
    path = Path(path)
    net = boxes(graph)
    net = net if net.name else replace(net, name=path.stem)
    marks = {i: "no weights in the file" for i, row in enumerate(net.rows) if row.name in lacking and row.params}
    if path.suffix == ".svg":
        write_file(path, svg(net, marks=marks))
    elif path.suffix == ".html":
        facts = f"{len(net.rows)} layers · {graph.parameters:,} parameters · {graph.macs:,} multiply-adds · phase {graph.state.phase}"
        write_file(path, drawing_page(net, facts, graph.notes, marks))
    else:
        raise FileProblem(f"{path}: a drawing ends in .svg or .html")
    return path
