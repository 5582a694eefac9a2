"""Drawings: what a good picture of a net has, whatever the net; SVG that is well-formed whatever the names; `decant draw`."""

from __future__ import annotations

import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from conftest import ROOT, Decant

from converters.drawing import layout as layouts
from converters.drawing.boxes import Boxes, boxes
from converters.drawing.layout import Layout, Point, arrange
from converters.drawing.page import LEVELS
from converters.drawing.svg import COLOURS, HEAD, TAIL, place, svg
from converters.resolution import resolve
from prototxt import parse_text

NETS = ROOT / "prototxt/nets"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</script><img src=x onerror="window.hacked=1">\'&\u202e<!--\x01\ud800'


def net_of(body: str) -> Boxes:
    """The boxes of a net on an image of 3 x 8 x 6."""
    return boxes(resolve(parse_text(f'input: "data" input_shape {{ dim: 2 dim: 3 dim: 8 dim: 6 }}\n{body}')))


def random_graph(seed: int) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    """Boxes of several sizes; each reads up to three earlier ones, near or far."""
    draw = random.Random(seed)
    count = draw.randint(2, 60)
    sizes = [(draw.choice([60.0, 120.0, 180.0]), draw.choice([30.0, 55.0])) for _ in range(count)]
    edges = {(draw.randint(max(0, i - draw.choice([2, 50])), i - 1), i) for i in range(1, count) for _ in range(draw.randint(0, 3))}
    return sizes, sorted(edges)


def check(sizes: list[tuple[float, float]], edges: list[tuple[int, int]], made: Layout) -> None:
    """No box lies on another; every line leaves below its source, falls, and ends above its target."""
    corners = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(made.places, sizes, strict=True)]
    for a, b in combinations(corners, 2):
        assert a[2] <= b[0] + 0.1 or b[2] <= a[0] + 0.1 or a[3] <= b[1] or b[3] <= a[1], "two boxes overlap"
    assert all(x >= -0.1 and right <= made.width + 0.1 and bottom <= made.height for x, _, right, bottom in corners)
    for (source, target), route in zip(edges, made.routes, strict=True):
        assert route[0] == pytest.approx(((corners[source][0] + corners[source][2]) / 2, corners[source][3]))
        assert route[-1] == pytest.approx(((corners[target][0] + corners[target][2]) / 2, corners[target][1]))
        assert all(a[1] <= b[1] for a, b in pairwise(route)), "a line climbs"


@pytest.mark.parametrize("seed", range(30))
def test_any_graph_flows_down_without_overlaps(seed: int) -> None:
    sizes, edges = random_graph(seed)
    check(sizes, edges, arrange(sizes, edges))


def test_lines_that_may_not_bend_are_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "BENDS", 3)
    sizes, edges = random_graph(3)
    check(sizes, edges, arrange(sizes, edges))


@pytest.mark.parametrize("name", ["lenet", "vgg16", "resnet50", "mobilenet_v1"])
def test_chains_stand_straight(name: str) -> None:
    """A box and the only box that it feeds, which reads nothing else, share one middle."""
    net = boxes(resolve(NETS / f"{name}.prototxt"))
    made = place(net)
    check([(made_width(net), HEAD + TAIL * (len(b.rows) - 1)) for b in net.boxes], list(net.edges), made)
    for source, target in net.edges:
        if sum(a == source for a, _ in net.edges) == sum(b == target for _, b in net.edges) == 1:
            assert made.places[source][0] == pytest.approx(made.places[target][0]), net.rows[net.boxes[target].rows[0]].name


@pytest.mark.parametrize("further", [(), ((0, 5), (0, 8), (4, 5), (4, 6), (4, 7), (5, 8), (6, 8), (7, 8))], ids=["alone", "beside a long line"])
def test_a_shortcut_does_not_push_its_block_aside(further: tuple[tuple[int, int], ...]) -> None:
    """A residual block stays one column; the line around it stands upright beside it, not far away."""
    edges = [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), *further]
    made = arrange([(100, 40)] * 9, edges)
    assert len({round(x, 3) for x, _ in made.places[:5]}) == 1
    column = made.places[0][0]
    (beside,) = {round(x, 3) for x, _ in made.routes[2][1:-1]}
    assert -50 < beside - column < 0 or 100 < beside - column < 150


def test_sweeps_take_crossings_away(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [random_graph(seed) for seed in range(8)]
    swept = sum(crossings(edges, arrange(sizes, edges).routes) for sizes, edges in graphs)
    monkeypatch.setattr(layouts, "SWEEPS", 0)
    assert swept < 0.8 * sum(crossings(edges, arrange(sizes, edges).routes) for sizes, edges in graphs)


def made_width(net: Boxes) -> float:
    """The width of the drawn boxes, from the picture itself."""
    frame = ET.fromstring(svg(net)).find(f".//{SVG}rect[@class='frame']")
    assert frame is not None
    return float(frame.attrib["width"])


@pytest.mark.parametrize("name", ["googlenet", "resnet50", "squeezenet_v1.1"])
def test_public_nets_have_no_crossings(name: str) -> None:
    net = boxes(resolve(NETS / f"{name}.prototxt"))
    assert crossings(net.edges, place(net).routes) == 0


def crossings(edges: Sequence[tuple[int, int]], routes: Sequence[tuple[Point, ...]]) -> int:
    """How many pairs of lines that share no end cross."""
    lines = combinations(zip(edges, routes, strict=True), 2)
    return sum(any(cross(p, q) for p in pairwise(a) for q in pairwise(b)) for (e, a), (f, b) in lines if e[0] != f[0] and e[1] != f[1])


def cross(a: tuple[Point, Point], b: tuple[Point, Point]) -> bool:
    """Whether two segments meet between their ends."""

    def side(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(*a, b[0]) * side(*a, b[1]) < -1e-6 and side(*b, a[0]) * side(*b, a[1]) < -1e-6


def test_layers_in_place_share_the_box_of_their_blob() -> None:
    net = net_of(
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 5 kernel_size: 3 } }'
        'layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" } layer { name: "s" type: "Scale" bottom: "c" top: "c" }'
        'layer { name: "r" type: "ReLU" bottom: "c" top: "c" } layer { name: "p" type: "ReLU" bottom: "c" top: "p" }'
    )
    assert [[net.rows[i].name for i in box.rows] for box in net.boxes] == [["input"], ["c", "b", "s", "r"], ["p"]]
    assert [net.rows[i].tops for i in net.boxes[1].rows] == [("c@0",), ("c@1",), ("c@2",), ("c",)]
    assert net.edges == ((0, 1), (1, 2))
    assert net.rows[1].detail == "3x3"
    assert net.boxes[2].outputs == ("p",)


def test_svg_is_well_formed_whatever_the_names() -> None:
    """Markup in a name stays text; what XML cannot hold is replaced; every layer has its row."""
    written = "".join(f"\\{ord(c):03o}" if ord(c) < 128 else c for c in HOSTILE.replace("\ud800", ""))
    net = net_of(f'layer {{ name: "{written}" type: "ReLU" bottom: "data" top: "{written}" }}')
    assert net.rows[1].name == HOSTILE.replace("\ud800", "")
    for name in (net.rows[1].name, HOSTILE):
        for alone in (True, False):
            text = svg(Boxes(name, net.rows, net.boxes, net.edges), alone=alone)
            tree = ET.fromstring(text.encode("utf-8"))
            assert [row.attrib["data-layer"] for row in tree.iter(f"{SVG}g") if "data-layer" in row.attrib] == ["0", "1"]
            assert {element.tag.removeprefix(SVG) for element in tree.iter()} <= {
                *("svg", "title", "style", "defs", "marker", "path", "rect", "g", "text"),
            }


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG's contrast of two colours, 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read_and_tell_more_from_less(theme: int) -> None:
    """Text on every colour has WCAG AA's contrast; within agreeing and within differing, more error is further from the page."""
    shades = [level[2 * theme] for level in LEVELS]
    assert all(contrast(level[2 * theme], level[2 * theme + 1]) >= 4.5 for level in LEVELS)
    assert all(contrast(COLOURS[ink][theme], COLOURS[on][theme]) >= 4.5 for ink in ("ink", "muted") for on in ("surface", "paper"))
    for group in (shades[:5], shades[5:]):
        steps = [luminance(colour) for colour in group]
        assert steps == sorted(steps, reverse=not theme)
    assert all(int(c[1:3], 16) <= int(c[5:7], 16) for c in shades[:5]), "agreeing is blue"
    assert all(int(c[1:3], 16) > int(c[5:7], 16) for c in shades[5:]), "differing is orange"


def test_draw_writes_by_the_files_ending(decant: Decant, tmp_path: Path) -> None:
    done = decant("draw", NETS / "lenet.prototxt")
    assert done.returncode == 0, done.stderr
    (written,) = [line.removeprefix("wrote ") for line in done.stdout.splitlines() if line.startswith("wrote")]
    assert ET.parse(tmp_path / written).getroot().tag == f"{SVG}svg"
    assert decant("draw", NETS / "lenet.prototxt", "-o", "net.html").returncode == 0
    assert (tmp_path / "net.html").read_text().startswith("<!doctype html>")
    wrong = decant("draw", NETS / "lenet.prototxt", "-o", "net.png")
    assert wrong.returncode == 2
    assert "net.png: a drawing ends in .svg or .html" in wrong.stderr


def test_draw_marks_what_the_weights_lack(decant: Decant, tmp_path: Path) -> None:
    weights = ROOT / "tests/conformance/nets/awkward-names.caffemodel"
    done = decant("draw", NETS / "lenet.prototxt", "-w", weights, "-o", "net.svg")
    assert done.returncode == 1, done.stderr
    assert "are missing" in done.stdout
    rows = [row for row in ET.parse(tmp_path / "net.svg").iter(f"{SVG}g") if "marked" in row.attrib.get("class", "")]
    assert len(rows) == 4  # conv1, conv2, ip1, ip2
    assert "no weights in the file" in ET.tostring(rows[0], encoding="unicode")


def test_drawing_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from converters.resolution import resolve; from converters.drawing.draw import draw;"
        f"draw(resolve({str(NETS / 'lenet.prototxt')!r}), Path(sys.argv[1]) / 'x.html');"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
