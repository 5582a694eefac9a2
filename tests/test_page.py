"""The page of a comparison, in a real browser: it loads from a file without a network, shows a layer, filters, obeys keys, and is not fooled
by the names of strangers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from converters.comparison.page import OverviewRow, level, write_overview, write_page
from converters.comparison.results import Report
from converters.drawing.draw import draw
from converters.graph import Graph
from converters.resolution import resolve
from prototxt import parse_text

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
)
LENET = ROOT / "prototxt/nets/lenet.prototxt"
HOSTILE = '</script><img src=x onerror="window.hacked=1"><b>&amp;'
NUMBERS = {"nan_a": 0, "nan_b": 0, "inf_a": 0, "inf_b": 0, "top": [], "output": False, "problem": "", "dtype": "float32"}


def result(name: str, layer: str, kind: str, shape: tuple[int, ...], error: float, **other: Any) -> dict[str, Any]:
    """One blob whose largest |b| is 2, so that 2.1e-4 passes; the error stands in the last column of its map."""
    tiles = [[error if column == 3 else error / 10 for column in range(4)] for _ in range(3)]
    preview = {
        "low": -1.0, "high": 2.0, "histogram_a": [1, 5, 9, 2], "histogram_b": [1, 6, 8, 2],
        "start": 4, "values": [[0.5, 0.5], [1.25 + error, 1.25]], "error_map": tiles if len(shape) == 4 else [],
    }  # fmt: skip
    return {
        **NUMBERS, "name": name, "layer": layer, "layer_type": kind, "shape": list(shape), "tolerance": {"atol": 1e-5, "rtol": 1e-4},
        "ok": error <= 2.1e-4, "worst_abs": error, "worst_rel": error / 2, "mean": error / 7, "quantiles": [[0.5, error / 9]], "cosine": 1.0,
        "index": [0] * len(shape), "value_a": 1.25 + error, "value_b": 1.25, "peak": 2.0, "preview": preview, **other,
    }  # fmt: skip


def report(graph: Graph, failing: tuple[str, ...] = (), **other: Any) -> Report:
    """Every blob of a graph, all within tolerance but those of the layers `failing`."""
    names = graph.value_names
    blobs = [
        result(names[top], step.name, step.type, shape, 0.4 if step.name in failing else 1e-6)
        for step in graph.steps
        for top, shape in zip(step.tops, step.shapes, strict=True)
    ]
    side = {"name": "PyTorch", "version": "2.14", "precision": "float32", "spec": ""}
    values = {
        "ok": not failing, "net": graph.name, "a": {**side, "name": "ONNX Runtime"}, "b": side, "blobs": blobs,
        "tolerance": {"atol": 1e-5, "rtol": 1e-4}, "missing": [], "extra": [], "unmatched": [], "layers": [], "divergence": None,
        "nonfinite": None, "gradients": [], "training": None, "inputs": "seed 0", "notes": [],
    }  # fmt: skip
    return Report.from_dict({**values, **other})


DIVERGENCE = {
    "blob": "pool1", "layer": "pool1", "layer_type": "Pooling", "error": 0.2, "place": "net.prototxt:9", "side": "a", "replay": 0.2,
    "cause": "pooling rounds down", "explanation": "Caffe rounds up.", "fix": "ceil_mode=True", "left": 1e-7, "tried": [["eps", "Infinity"]],
}  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser that is installed on this machine."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed: chromium, chromium-browser and google-chrome are not on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab in which nothing may complain and nothing may be fetched."""
    said: list[str] = []
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else said.append(f"fetched {request.url[:200]}"))
    yield page
    context.close()
    assert not said


def opened(tab: Any, path: Path) -> Any:
    """The page of a file, once its script is through."""
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=10_000)
    return tab


def names(tab: Any) -> list[str]:
    """The layers that the table shows."""
    return tab.eval_on_selector_all("#table tbody tr .name", "found => found.map((e) => e.textContent)")  # type: ignore[no-any-return]


def test_a_click_shows_the_layer(tab: Any, tmp_path: Path) -> None:
    """Error map, values and shapes of a layer chosen in the graph; the table and the bars above choose too."""
    graph = resolve(LENET)
    opened(tab, write_page(report(graph, ("pool1",), divergence=DIVERGENCE), graph, tmp_path / "page.html"))
    assert tab.inner_text(".verdict").startswith("differs")
    assert "pooling rounds down" in tab.inner_text(".cause")
    assert "ceil_mode=True" in tab.inner_text(".cause")
    assert "on A's own inputs, the layer misses A's values by 2.0e-01; with the cause put into it, by 1.0e-07" in tab.inner_text(".cause")
    tab.click(".row[data-layer='2']")
    shown = tab.inner_text(".side")
    assert "pool1" in shown
    assert "Differs: 2.0e-1 relative" in shown
    assert "1×20×12×12" in shown
    assert "nn.MaxPool2d(kernel_size=2, stride=2" in shown
    assert tab.locator(".side .map i").count() == 12
    assert [tab.locator(".side .values tr").nth(i).inner_text().split() for i in (1, 2)] == [
        ["4", "0.5", "0.5", "0"],
        ["5", "1.65", "1.25", "4.0e-1"],
    ]
    assert tab.get_attribute("tr[aria-selected=true] .name", "title") is None
    assert tab.inner_text("tr[aria-selected=true] .name") == "pool1"
    tab.click("#table tbody tr:nth-child(2)")
    assert tab.inner_text(".side h2") == "conv1"
    assert tab.get_attribute(".row.selected", "data-layer") == "1"
    tab.click(".bar >> nth=-1", force=True)
    assert tab.inner_text(".side h2") == "prob"
    tab.click(".side .links button >> nth=0")
    assert tab.inner_text(".side h2") == "ip2"
    tab.click("#to-divergence")
    assert tab.inner_text(".side h2") == "pool1"


def test_filters_leave_what_fails(tab: Any, tmp_path: Path) -> None:
    graph = resolve(LENET)
    opened(tab, write_page(report(graph, ("pool1", "relu1")), graph, tmp_path / "page.html"))
    assert names(tab) == ["data", "conv1", "pool1", "conv2", "pool2", "ip1", "relu1", "ip2", "prob"]
    tab.click("#failing")
    assert names(tab) == ["pool1", "relu1"]
    assert tab.locator(".row.dim").count() == 7
    assert tab.inner_text(".count") == "2 of 9 shown, 2 failing"
    tab.fill("#search", "RELU")
    assert names(tab) == ["relu1"]
    tab.fill("#search", "no such layer")
    assert tab.is_visible(".empty")
    tab.fill("#search", "")
    tab.click("#failing")
    tab.click("th button >> text=Error")
    assert names(tab)[:2] == ["pool1", "relu1"]
    assert tab.get_attribute("th[aria-sort=descending]", "class") == "number"


def test_keys_reach_everything(tab: Any, tmp_path: Path) -> None:
    """Without a pointer: filter, next failing, along the table, along the graph, close, theme."""
    graph = resolve(LENET)
    opened(tab, write_page(report(graph, ("pool2", "ip2")), graph, tmp_path / "page.html"))
    press = tab.keyboard.press
    for key, layer in (("n", "pool2"), ("n", "ip2"), ("p", "pool2")):
        press(key)
        assert tab.inner_text(".side h2") == layer
    press("Escape")
    assert "Choose a layer" in tab.inner_text(".side")
    press("f")
    assert names(tab) == ["pool2", "ip2"]
    press("f")
    press("/")
    assert tab.evaluate("document.activeElement.id") == "search"
    press("Escape")
    tab.focus("#table tbody tr[tabindex='0']")
    press("Home")
    press("ArrowDown")
    press("ArrowDown")
    assert tab.inner_text(".side h2") == "pool1"
    assert tab.locator("#table [tabindex='0']").count() == 1
    tab.focus(".row[tabindex='0']")
    assert tab.evaluate("document.activeElement.dataset.layer") == "2"
    for layer in ("3", "4", "5", "6", "7"):  # into a box, through its rows, out of it
        press("ArrowDown")
        assert tab.evaluate("document.activeElement.dataset.layer") == layer
    press("ArrowUp")
    press("Enter")
    assert tab.inner_text(".side h2") == "relu1"
    tab.focus(".side [aria-label=Next]")
    press("Enter")
    press("Enter")
    assert tab.inner_text(".side h2") == "prob"
    press("Escape")
    assert tab.evaluate("document.activeElement.closest('#table') !== null")
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.focus("#theme")
    press("Enter")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
    press("?")
    assert tab.is_visible("#keys")
    press("Escape")
    place = tab.get_attribute(".world", "transform")
    press("+")
    tab.wait_for_function("place => document.querySelector('.world').getAttribute('transform') !== place", arg=place)


def test_names_of_strangers_stay_text(tab: Any, tmp_path: Path) -> None:
    """A layer called like markup is shown as it is called, in the graph, the table and the details, and runs nothing."""
    written = HOSTILE.replace('"', '\\"')
    body = f'layer {{ name: "{written}" type: "ReLU" bottom: "data" top: "{written}" }}'
    graph = resolve(parse_text(f'name: "{written}" input: "data" input_shape {{ dim: 1 dim: 3 dim: 4 dim: 5 }} {body}'))
    told = {**DIVERGENCE, "blob": HOSTILE, "layer": HOSTILE, "cause": HOSTILE, "fix": HOSTILE}
    path = write_page(report(graph, (HOSTILE,), divergence=told, notes=[HOSTILE], inputs=HOSTILE), graph, tmp_path / "page.html")
    opened(tab, path)
    tab.click(".row[data-layer='1']")
    assert tab.inner_text("h1") == HOSTILE
    assert tab.inner_text(".side h2") == HOSTILE
    assert HOSTILE in names(tab)
    assert tab.locator("img, b").count() == 0
    assert tab.evaluate("window.hacked") is None
    assert path.read_text().count("</script>") == 2  # the data's and ours
    opened(tab, draw(graph, tmp_path / "net.html"))
    assert tab.locator("img, b").count() == 0
    write_overview([OverviewRow(HOSTILE, False, problem=HOSTILE, page="a b#c?.html")], tmp_path / "all.html", title=HOSTILE)
    tab.goto((tmp_path / "all.html").as_uri())
    assert tab.inner_text("tbody th") == HOSTILE
    assert tab.locator("img, b").count() == 0
    assert tab.get_attribute("tbody a", "href") == "a%20b%23c%3F.html"


def test_a_thousand_layers_are_no_trouble(tab: Any, tmp_path: Path) -> None:
    layers = "".join(f'layer {{ name: "r{i}" type: "ReLU" bottom: "{f"r{i - 1}" if i else "data"}" top: "r{i}" }}' for i in range(1000))
    graph = resolve(parse_text(f'name: "chain" input: "data" input_shape {{ dim: 1 dim: 2 dim: 3 dim: 4 }} {layers}'))
    opened(tab, write_page(report(graph, ("r998",)), graph, tmp_path / "page.html"))
    assert tab.locator("#table tbody tr").count() == 1001
    tab.keyboard.press("n")
    assert tab.inner_text(".side h2") == "r998"
    assert tab.locator("tr[aria-selected=true]").is_visible()
    inside = "const [a, b] = ['.stage', '.row.selected'].map((s) => document.querySelector(s).getBoundingClientRect());"
    tab.wait_for_function(f"() => {{ {inside} return b.top > a.top && b.bottom < a.bottom; }}")
    tab.hover(".stage", position={"x": 20, "y": 20})
    tab.mouse.wheel(0, -100_000)
    tab.wait_for_selector(".row[data-layer='1']", state="visible")
    tab.focus(".row[tabindex='0']")  # still there for Tab, though far outside the window
    assert tab.evaluate("document.activeElement.dataset.layer") == "999"


def test_gradients_and_training_have_tables_of_their_own(tab: Any, tmp_path: Path) -> None:
    graph = resolve(LENET)
    weight = result("conv1/0", "conv1", "Convolution", (20, 1, 5, 5), 0.4)
    training = {
        "losses_a": [2.0, 1.0, 0.5], "losses_b": [2.0, 1.0, "NaN"], "losses": result("loss", "", "", (3,), 0.4),
        "weights": [weight], "histories": [],
    }  # fmt: skip
    values = report(graph, gradients=[weight], training=training, ok=False)
    opened(tab, write_page(values, graph, tmp_path / "page.html"))
    assert tab.locator(".tabs button").all_inner_texts() == ["Blobs 8", "Gradients 1", "Weights 1"]
    tab.click(".tabs button >> nth=1")
    assert names(tab) == ["conv1"]
    assert "level-" in tab.get_attribute(".row[data-layer='1']", "class")
    assert "none" in tab.get_attribute(".row[data-layer='2']", "class")
    assert tab.locator("#curves path").count() == 2
    opened(tab, write_page(values, None, tmp_path / "page.html"))  # two solvers, of which nobody kept the net
    assert "nothing to draw" in tab.inner_text(".graph")
    tab.click("#table tbody tr")
    assert tab.inner_text(".side h2") == "conv1"


def test_saved_runs_need_no_prototxt(tab: Any, tmp_path: Path) -> None:
    """Without a graph, the page draws the layers that the report remembers; the proof card comes with it."""
    graph = resolve(LENET)
    layers = [
        {"name": "conv1", "type": "Convolution", "bottoms": ["data"], "tops": ["conv1@0"], "shapes": [[64, 20, 24, 24]], "place": ""},
        {"name": "relu", "type": "ReLU", "bottoms": ["conv1@0"], "tops": ["conv1"], "shapes": [[64, 20, 24, 24]], "place": ""},
        {"name": "pool1", "type": "Pooling", "bottoms": ["conv1"], "tops": ["pool1"], "shapes": [[64, 20, 12, 12]], "place": ""},
    ]

    class Card:
        def to_dict(self) -> dict[str, Any]:
            measured = {"against": "module vs Caffe", "error": 2e-7, "limit": 1e-4, "ok": True, "worst": "prob", "note": ""}
            facts = {"net": "lenet", "proven": True, "sources": {"net.prototxt": "00ff"}, "versions": {"torch": "2.14"}, "inputs": "seed 0"}
            return {**facts, "measurements": [measured], "notes": []}

    opened(tab, write_page(report(graph, layers=layers), None, tmp_path / "page.html", Card()))  # type: ignore[arg-type]
    assert tab.locator(".box").count() == 2
    assert tab.locator(".edge").count() == 1
    assert "2.0e-07" in tab.inner_text("#proof")
    assert tab.locator("#table tbody tr").count() == 9  # and the value before the write in place, which nobody compared


def test_many_models_on_one_page(tab: Any, tmp_path: Path) -> None:
    rows = [
        OverviewRow("lenet", True, "ONNX Runtime", "PyTorch", 8, 0, 2e-7, "prob", seconds=1.25, page="lenet.html"),
        OverviewRow("vgg", False, "ONNX Runtime", "PyTorch", 20, 3, 0.1, "pool1", "pooling rounds down"),
        OverviewRow("broken", False, problem="net.prototxt:1:1: expected '}'"),
    ]
    write_overview(rows, tmp_path / "all.html")
    tab.goto((tmp_path / "all.html").as_uri())
    assert "2 of 3 models differ or fail" in tab.inner_text(".verdict")
    assert tab.locator("tbody tr:visible").count() == 3
    tab.check("#failing")
    assert tab.locator("tbody tr:visible").all_inner_texts()[1].startswith("broken")
    assert tab.locator("tbody tr:visible").count() == 2


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"worst_abs": 0.0}, 0),
        ({"worst_abs": 2.1e-7}, 1),
        ({"worst_abs": 2.1e-6}, 2),
        ({"worst_abs": 2e-5}, 3),
        ({"worst_abs": 2.1e-4}, 4),
        ({"worst_abs": 2e-3, "ok": False}, 5),
        ({"worst_abs": 2e-2, "ok": False}, 6),
        ({"worst_abs": 0.5, "ok": False}, 7),
        ({"worst_abs": "Infinity", "ok": False}, 7),
        ({"worst_abs": "NaN", "ok": False}, 7),
        ({"worst_abs": 1e-9, "tolerance": {"atol": 0.0, "rtol": 0.0}, "ok": False}, 7),
        ({"worst_abs": 0.0, "tolerance": {"atol": 0.0, "rtol": 0.0}}, 0),
        ({"worst_abs": 1e-6, "ok": False}, 5),  # the report's word counts, not the colour's own sum
        ({"worst_abs": 3e-4}, 4),
        ({"problem": "shapes differ", "ok": False}, 8),
    ],
)
def test_colours_follow_the_share_of_the_tolerance(change: dict[str, Any], want: int) -> None:
    assert level({**result("x", "x", "ReLU", (2, 3), 1e-6), **change}) == want
