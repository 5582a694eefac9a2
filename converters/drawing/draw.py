"""`decant draw`: a net as a file, SVG or a page, by the file's ending."""

from __future__ import annotations

from pathlib import Path

from prototxt import FileProblem
from prototxt.files import write_file

from ..graph import Graph
from .boxes import boxes
from .page import drawing_page
from .svg import svg


def draw(graph: Graph, path: str | Path, extra: str = "") -> Path:
    """Write the picture of a graph; FileProblem for an ending that is neither .svg nor .html. `extra` joins the page's subtitle."""
    path, net = Path(path), boxes(graph)
    if path.suffix == ".svg":
        write_file(path, svg(net))
    elif path.suffix == ".html":
        facts = [f"{len(net.rows)} layers", f"{graph.parameters:,} parameters", f"{graph.macs:,} multiply-adds", f"phase {graph.state.phase}"]
        write_file(path, drawing_page(net, " · ".join([*facts, *([extra] if extra else [])]), graph.notes))
    else:
        raise FileProblem(f"{path}: a drawing ends in .svg or .html")
    return path
