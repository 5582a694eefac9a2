"""A page of one file to walk through a net: the graph with pan and zoom, a table of its layers, one layer in detail. No network, no torch.

The same template shows a comparison (converters/comparison/page.py). Text from files is escaped by the template, data are JSON that cannot
close its element, and a content security policy lets no script run but ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .boxes import Boxes, Row
from .layout import Layout
from .svg import HEAD, TAIL, box_width, page_rules, place, svg, variables

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("common.js", "graph.js", "profile.js", "table.js", "details.js", "page.js")
FAMILIES = {
    "data": "data",
    "weights": "weights",
    "norm": "normalization",
    "pool": "pooling",
    "activation": "activation",
    "head": "loss, detection",
    "other": "shape and others",
}
LEVELS = (  # (on light, its text, on dark, its text): more error is more ink on light and more light on dark; blue agrees, orange differs
    ("#f1f3f4", "#1c2226", "#262c31", "#e6e9eb"),
    ("#e2edf4", "#1c2226", "#213440", "#e6e9eb"),
    ("#cbe0ee", "#1c2226", "#22465c", "#e6e9eb"),
    ("#abcde4", "#1c2226", "#275a7b", "#ffffff"),
    ("#86b4d6", "#1c2226", "#2f6f9a", "#ffffff"),
    ("#f3a953", "#1c2226", "#d8863a", "#15181b"),
    ("#dd7320", "#15181b", "#f0ab55", "#15181b"),
    ("#a5400f", "#ffffff", "#fad08f", "#15181b"),
    ("#5e1f12", "#ffffff", "#fff3dc", "#15181b"),
)


def drawing_page(net: Boxes, subtitle: str, notes: Sequence[str] = (), marks: Mapping[int, str] | None = None) -> str:
    """The page of a net alone; `marks` as in svg."""
    layout = place(net)
    entries = [{"row": i, "result": None} for i in range(len(net.rows))]
    data = {**graph_data(net, layout), "compared": False, "sets": [{"title": "Layers", "noun": "layer", "entries": entries}]}
    return render(net, layout, data, marks, subtitle=subtitle, notes=notes)


def render(net: Boxes, layout: Layout, data: Mapping[str, Any], marks: Mapping[int, str] | None = None, **context: Any) -> str:
    """The page; `context` is what the template takes beyond graph and data: subtitle, notes, report, card."""
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    given = {"subtitle": "", "notes": (), "report": None, "card": None, "families": FAMILIES.items(), "title": net.name} | context
    return template(
        "page.html.jinja",
        data=data,
        svg=trusted(svg(net, layout, alone=False, marks=marks)),
        style=trusted(style()),
        script=trusted(script),
        script_hash=f"sha256-{digest}",
        **given,
    )


def template(name: str, **context: Any) -> str:
    """A template of ours, filled; whatever is not known to be markup is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template(name).render(**context)


def style() -> str:
    """All rules of a page, and the colours for light and dark."""
    light = " ".join([variables(0), *(f"--level-{i}: {a}; --on-{i}: {b};" for i, (a, b, _, _) in enumerate(LEVELS))])
    dark = " ".join([variables(1), *(f"--level-{i}: {a}; --on-{i}: {b};" for i, (_, _, a, b) in enumerate(LEVELS))])
    light += " --focus: #0b63b5; --hover: #f1f4f6; --map: #4c1d0f;"
    dark += " --focus: #7ab8f0; --hover: #272d32; --map: #ffe3b0;"
    coloured = [
        f".level-{i} {{ background: var(--level-{i}); color: var(--on-{i}); fill: var(--level-{i}); }}"
        f" .net .level-{i} .cell {{ fill: var(--level-{i}); }} .net .level-{i} text {{ fill: var(--on-{i}); }}"
        for i in range(len(LEVELS))
    ]
    return "\n".join(
        [
            f":root {{ {light} }}",
            f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark} }} }}',
            f':root[data-theme="dark"] {{ {dark} }}',
            (ASSETS / "page.css").read_text(encoding="utf-8"),
            page_rules(),
            *coloured,
        ]
    )


def graph_data(net: Boxes, layout: Layout) -> dict[str, Any]:
    """What the page's script knows of a net and of its places."""
    return {
        "rows": [_row(row) for row in net.rows],
        "boxes": [{"x": round(x, 1), "y": round(y, 1), "rows": list(box.rows)} for box, (x, y) in zip(net.boxes, layout.places, strict=True)],
        "edges": [list(edge) for edge in net.edges],
        "size": [round(layout.width, 1), round(layout.height, 1)],
        "width": box_width(net),
        "head": HEAD,
        "tail": TAIL,
        "divergence": -1,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "type": row.type,
        "family": row.family,
        "bottoms": list(row.bottoms),
        "tops": list(row.tops),
        "shapes": [list(shape) for shape in row.shapes],
        "detail": row.detail,
        "source": row.source,
        "place": row.place,
        "params": [list(shape) for shape in row.params],
        "parameters": row.parameters,
        "macs": row.macs,
    }


def trusted(markup: str) -> Any:
    """Markup that this package wrote, its parts from files escaped already."""
    from markupsafe import Markup

    return Markup(markup)  # noqa: S704
