"""Boxes as SVG: for a file of its own, with its colours for light and dark, or for a page that brings them.

Names come from files that nobody vouches for: all text is escaped, and what XML cannot hold is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from unicodedata import east_asian_width

from ..recipe import Shape
from .boxes import Box, Boxes, Row
from .layout import Layout, Point, arrange

HEAD, TAIL = 42.0, 20.0  # heights of the first row of a box and of those in place behind it
WIDTHS = (180.0, 300.0)  # a box fits the longest name, within these
CHARACTER = 6.9  # mean width of one, at 12 px, in the widest of the usual fonts
MARGIN = 24.0
CORNER = 6.0

COLOURS = {  # name: (on light, on dark)
    "paper": ("#f6f6f3", "#15181b"),
    "surface": ("#ffffff", "#1d2125"),
    "ink": ("#1c2226", "#e6e9eb"),
    "muted": ("#5f696f", "#9aa4ab"),
    "line": ("#d9dcda", "#343b41"),
    "edge": ("#8e989e", "#67727a"),
    "data": ("#6b7780", "#9aa6ae"),
    "weights": ("#2b6ea6", "#6aaade"),
    "norm": ("#7a6bb0", "#a99be0"),
    "pool": ("#1f8a78", "#4fbfab"),
    "activation": ("#c08a1e", "#e0b354"),
    "head": ("#b4533b", "#e58a70"),
    "other": ("#9aa3a8", "#6f7a81"),
}
FAMILIES = ("data", "weights", "norm", "pool", "activation", "head", "other")
RULES = """
.net { font-family: ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif; font-size: 12px; }
.net .paper { fill: $paper; }
.net .cell { fill: $surface; }
.net .frame { fill: none; stroke: $line; }
.net .marked .cell { stroke: $head; stroke-dasharray: 4 3; stroke-width: 1.5; }
.net .rule { stroke: $line; }
.net .edge { fill: none; stroke: $edge; stroke-width: 1.25; }
.net .arrow { fill: $edge; }
.net text { fill: $muted; }
.net .name { fill: $ink; unicode-bidi: isolate; }
.net .first .name { font-weight: 600; }
.net .small { font-size: 11px; }
.net .end { text-anchor: end; }
.net .middle { text-anchor: middle; }
""" + "\n".join(f".net .chip.{name} {{ fill: ${name}; }}" for name in FAMILIES)


def place(net: Boxes) -> Layout:
    """Where the boxes of a net stand."""
    width = box_width(net)
    return arrange([(width, _height(box)) for box in net.boxes], net.edges)


def svg(net: Boxes, layout: Layout | None = None, *, alone: bool = True, marks: Mapping[int, str] | None = None) -> str:
    """The picture; `alone` with colours and size for a file of its own, else for a page that styles it.

    A row is `<g class="row" data-layer="index into net.rows">`, an edge carries data-from and data-to, a box data-box. `marks` say by
    row what is wrong with it.
    """
    layout = layout or place(net)
    width = box_width(net)
    size = f"{layout.width + 2 * MARGIN:.0f}", f"{layout.height + 2 * MARGIN:.0f}"
    name = _text(net.name or "net")
    frame = f' width="{size[0]}" height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}"' if alone else ""
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" class="net"{frame} role="img" aria-label="Graph of {name}">']
    lines += [f"<title>{name}</title>", f"<style>{stylesheet()}</style>", '<rect class="paper" width="100%" height="100%"/>'] if alone else []
    lines.append('<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">')
    lines.append('<path class="arrow" d="M0 0.5L8 4L0 7.5z"/></marker></defs>')
    lines.append(f'<g class="world" transform="translate({MARGIN:.0f} {MARGIN:.0f})">')
    lines += [
        f'<path class="edge" data-from="{source}" data-to="{target}" marker-end="url(#arrow)" d="{_curve(route)}"/>'
        for (source, target), route in zip(net.edges, layout.routes, strict=True)
    ]
    for i, (box, corner) in enumerate(zip(net.boxes, layout.places, strict=True)):
        lines += _box(i, box, corner, net, width, marks or {})
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


def stylesheet() -> str:
    """The rules for a file of its own: light, and dark where the reader asks for it."""
    light, dark = ({name: pair[i] for name, pair in COLOURS.items()} for i in (0, 1))
    return f"{_filled(light)}\n@media (prefers-color-scheme: dark) {{{_filled(dark)}\n}}"


def variables(which: int) -> str:
    """The colours as custom properties of a page: 0 on light, 1 on dark."""
    return " ".join(f"--{name}: {pair[which]};" for name, pair in COLOURS.items())


def page_rules() -> str:
    """The rules for a page, whose custom properties are the colours."""
    return _filled({name: f"var(--{name})" for name in COLOURS})


def _filled(colours: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda found: colours[found[1]], RULES)


def box_width(net: Boxes) -> float:
    """The width of every box of a net."""
    low, high = WIDTHS
    wanted = [max(_columns(row.name) + 12, len(row.type) + len(", ".join(map(shape_text, row.shapes))) + 4) for row in net.rows]
    return float(round(min(max([low, *(columns * CHARACTER for columns in wanted)]), high)))


def _height(box: Box) -> float:
    return HEAD + TAIL * (len(box.rows) - 1)


def _box(index: int, box: Box, corner: Point, net: Boxes, width: float, marks: Mapping[int, str]) -> list[str]:
    height, y = _height(box), 0.0
    lines = [f'<g class="box" data-box="{index}" transform="translate({corner[0]:.1f} {corner[1]:.1f})">']
    for place, i in enumerate(box.rows):
        tall = HEAD if not place else TAIL
        lines += _row(i, net.rows[i], y, width, tall, marks.get(i, ""), top=not place, bottom=place == len(box.rows) - 1)
        y += tall
    lines.append(f'<rect class="frame" width="{width:.0f}" height="{height:.0f}" rx="{CORNER:.0f}"/>')
    if box.outputs:
        lines.append(f'<text class="small middle" x="{width / 2:.0f}" y="{height + 16:.0f}">output {_text(", ".join(box.outputs), 40)}</text>')
    return [*lines, "</g>"]


def _row(index: int, row: Row, y: float, width: float, height: float, mark: str, *, top: bool, bottom: bool) -> list[str]:
    shape = ", ".join(map(shape_text, row.shapes))
    hint = f"{row.name}: {row.type} {row.detail}".strip() + (f"\n{shape}" if shape else "") + (f"\n{mark}" if mark else "")
    place = ("first" if top else "behind") + (" marked" if mark else "")
    lines = [f'<g class="row {place}" data-layer="{index}"><title>{_text(hint)}</title>']
    lines.append(f'<path class="cell" d="{_cell(y, width, height, CORNER if top else 0, CORNER if bottom else 0)}"/>')
    lines.append(f'<path class="chip {row.family}" d="{_cell(y, 5, height, CORNER if top else 0, CORNER if bottom else 0, right=False)}"/>')
    lines += [] if top else [f'<path class="rule" d="M0 {y:.0f}H{width:.0f}"/>']
    baseline = y + (18 if top else 14)
    note = mark or (row.detail if top else row.type)
    room = int((width - 26) / CHARACTER) - (_columns(note) if note else 0)
    lines.append(f'<text class="name" x="13" y="{baseline:.0f}">{_text(row.name, max(room, 10))}</text>')
    lines.append(f'<text class="note small end" x="{width - 9:.0f}" y="{baseline:.0f}">{_text(note, 24)}</text>')
    if top:
        lines.append(f'<text class="small" x="13" y="{y + 34:.0f}">{_text(row.type, 22)}</text>')
        lines.append(f'<text class="small end" x="{width - 9:.0f}" y="{y + 34:.0f}">{_text(shape, 22)}</text>')
    return [*lines, "</g>"]


def _cell(y: float, width: float, height: float, above: float, below: float, *, right: bool = True) -> str:
    """A rectangle with corners rounded above or below; on its left alone where `right` is false."""
    a, b = (above, below) if right else (0.0, 0.0)
    return (
        f"M{above:g} {y:g}H{width - a:g}"
        + (f"a{a:g} {a:g} 0 0 1 {a:g} {a:g}" if a else "")
        + f"V{y + height - b:g}"
        + (f"a{b:g} {b:g} 0 0 1 -{b:g} {b:g}" if b else "")
        + f"H{below:g}"
        + (f"a{below:g} {below:g} 0 0 1 -{below:g} -{below:g}" if below else "")
        + f"V{y + above:g}"
        + (f"a{above:g} {above:g} 0 0 1 {above:g} -{above:g}" if above else "")
        + "z"
    )


def _curve(route: tuple[Point, ...]) -> str:
    """Straight down, and an S where the line changes its place."""
    (x, y), *rest = route
    parts = [f"M{x:.1f} {y:.1f}"]
    for to, down in rest:
        middle = (y + down) / 2
        parts.append(f"V{down:.1f}" if abs(to - x) < 0.05 else f"C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {down:.1f}")
        x, y = to, down
    return "".join(parts)


def shape_text(shape: Shape) -> str:
    """(1, 3, 8, 8) -> "1×3×8×8"."""
    return "×".join(map(str, shape)) or "scalar"


_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(words: str, room: int | None = None) -> str:
    """Escaped, and cut in the middle to `room` columns."""
    words = _NOT_XML.sub("\ufffd", words)
    if room is not None and _columns(words) > room:
        words = f"{words[: (room - 1) // 2]}…{words[len(words) - room // 2 :]}" if len(words) > room else f"{words[: room // 2]}…"
    return escape(words)


def _columns(words: str) -> int:
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in words)
