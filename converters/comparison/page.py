"""A comparison as one self-contained HTML page; many comparisons as another, a row a model. No network, no torch.

    write_page(report, graph, path, card=None)      report: results.Report; graph: the net's Graph, or None:
                                                    then the page draws report.layers; card: the ProofCard of a conversion
    write_overview(rows, path, title="Comparisons") rows: OverviewRow, one a model

The graph is coloured by error as a share of each blob's tolerance (LEVELS): blue agrees, orange differs, more ink is more error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt.files import write_file

from ..drawing.boxes import Boxes, Row, boxed, boxes, family_of
from ..drawing.page import graph_data, render, style, template, trusted
from ..drawing.svg import place
from ..graph import Graph
from .results import FLOOR, Report

if TYPE_CHECKING:
    from ..proof import ProofCard

SHARES = ((0.0, "0"), (1e-3, "0.1%"), (1e-2, "1%"), (1e-1, "10%"), (1.0, "100%"), (10.0, "10×"), (100.0, "100×"))  # a level holds up to
BEYOND = (">100×", "n/a")
PASSING = 4  # the last level that agrees


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """One model of many. `page` is the link to its own page, relative to the overview; `problem` says why nothing was compared."""

    name: str
    ok: bool
    a: str = ""
    b: str = ""
    blobs: int = 0
    failing: int = 0
    worst: float | None = None
    worst_blob: str = ""
    cause: str = ""
    seconds: float | None = None
    page: str = ""
    problem: str = ""


def write_page(report: Report, graph: Graph | None, path: str | Path, card: ProofCard | None = None) -> Path:
    """Write the page of one comparison, whole or not at all."""
    values = report.to_dict()
    net = boxes(graph) if graph else _from_layers(values)
    layout = place(net)
    sets = _sets(values, net)
    divergence = values["divergence"] or {}
    data = {
        **graph_data(net, layout),
        "compared": True,
        "sets": sets,
        "sides": [_side(values["a"]), _side(values["b"])],
        "unmatched": values["unmatched"],
        "divergent": divergence.get("blob", ""),
        "divergence": _row_of_blob(net).get(divergence.get("blob", ""), -1),
        "losses": {"a": values["training"]["losses_a"], "b": values["training"]["losses_b"]} if values["training"] else None,
    }
    text = render(
        net,
        layout,
        data,
        title=values["net"] or net.name or Path(path).stem,
        subtitle=f"A  {_side(values['a'])}   against   B  {_side(values['b'])}",
        notes=graph.notes if graph else (),
        report=_report(values, sets),
        card=card.to_dict() if card else None,
    )
    write_file(path, text)
    return Path(path)


def write_overview(rows: Sequence[OverviewRow], path: str | Path, title: str = "Comparisons") -> Path:
    """Write the page of many comparisons, whole or not at all."""
    text = template("overview.html.jinja", rows=rows, title=title, style=trusted(style()), **_overview(rows))
    write_file(path, text)
    return Path(path)


# Levels ---------------------------------------------------------------------------------------------------------------


def level(result: Mapping[str, Any]) -> int:
    """The colour of a result: 0 equal bits, up to 4 agrees, up to 7 differs, 8 has no number. Agreement is the report's own word."""
    if result["problem"]:
        return len(SHARES) + 1
    share = ratio(result)
    found = next((i for i, (limit, _) in enumerate(SHARES) if share <= limit), len(SHARES))
    return min(found, PASSING) if result["ok"] else max(found, PASSING + 1)


def ratio(result: Mapping[str, Any]) -> float:
    """max|a - b| as a share of what the tolerance allows; inf where nothing is allowed."""
    error, allowed = _number(result["worst_abs"]), _allowed(result)
    if math.isnan(error):
        return math.inf
    return error / allowed if allowed else math.inf if error else 0.0


def _allowed(result: Mapping[str, Any]) -> float:
    return _number(result["tolerance"]["atol"]) + _number(result["tolerance"]["rtol"]) * _number(result["peak"])


def _number(value: float | str) -> float:
    return float(value)  # "NaN", "Infinity" and "-Infinity" of to_dict are Python's words too


# What the page's script takes -----------------------------------------------------------------------------------------


def _sets(values: Mapping[str, Any], net: Boxes) -> list[dict[str, Any]]:
    """The tables: blobs with the layers of which nothing was compared, then gradients, weights, histories, where there are any."""
    training = values["training"] or {}
    listed = [("Blobs", "blob", values["blobs"]), ("Gradients", "gradient", values["gradients"])]
    listed += [("Weights", "weight", training.get("weights", ())), ("Histories", "history", training.get("histories", ()))]
    made = [{"title": title, "noun": noun, "entries": _entries(results, net, noun)} for title, noun, results in listed if results]
    return made or [{"title": "Blobs", "noun": "blob", "entries": _entries((), net, "blob")}]


def _entries(results: Iterable[Mapping[str, Any]], net: Boxes, noun: str) -> list[dict[str, Any]]:
    blobs, layers = _row_of_blob(net), {row.name: i for i, row in reversed(list(enumerate(net.rows)))}
    entries: list[dict[str, Any]] = []
    for result in results:
        row = layers.get(result["layer"], -1)
        entries.append({"row": blobs.get(result["name"], row) if noun == "blob" else row, "result": _result(result)})
    if noun == "blob":
        seen = {entry["row"] for entry in entries}
        entries += [{"row": i, "result": None} for i in range(len(net.rows)) if i not in seen]
        entries.sort(key=lambda entry: entry["row"] if entry["row"] >= 0 else len(net.rows))
    return entries


def _row_of_blob(net: Boxes) -> dict[str, int]:
    return {top: i for i, row in enumerate(net.rows) for top in row.tops}


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "layer", "layer_type", "shape", "dtype", "tolerance", "ok", "index", "nan_a", "nan_b", "inf_a", "inf_b", "top", "problem")
    peak, error = _number(result["peak"]), _number(result["worst_abs"])
    rounded = {name: _short(result[name], 9) for name in ("worst_abs", "mean", "cosine", "value_a", "value_b", "peak")}
    return {
        **{name: result[name] for name in kept},
        **rounded,
        "rel": _short(result["worst_rel"], 6),
        "quantiles": [[q, _short(value, 4)] for q, value in result["quantiles"]],
        "level": level(result),
        "ratio": _short(ratio(result), 6),
        "allowed": _short(_allowed(result) / max(peak, FLOOR), 6),
        "needs_rtol": _short(error / peak if peak else math.inf, 6),
        "preview": _preview(result["preview"]),
    }


def _preview(preview: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Digits that nobody can see would be most of the file: 9 tell a float32, 3 a colour."""
    if preview is None:
        return None
    return {
        **preview,
        "low": _short(preview["low"], 6),
        "high": _short(preview["high"], 6),
        "values": [[_short(a, 9), _short(b, 9)] for a, b in preview["values"]],
        "error_map": [[_short(value, 3) for value in line] for line in preview["error_map"]],
    }


def _short(value: float | str, digits: int) -> float | str:
    """To so many digits; what is not finite as to_dict writes it."""
    value = _number(value)
    if math.isfinite(value):
        return float(f"{value:.{digits}g}")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# What the template takes ----------------------------------------------------------------------------------------------


def _report(values: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    legend = [(label, i > PASSING) for i, label in enumerate((*(label for _, label in SHARES), *BEYOND))]
    lists = [("Only B has", values["missing"]), ("Only A has", values["extra"]), ("Inner blobs that one side alone can show", values["unmatched"])]
    return {
        "ok": values["ok"],
        "badge": "agrees" if values["ok"] else "differs",
        "verdict": _verdict(values, sets),
        "cause": _cause(values["divergence"]) if values["divergence"] else None,
        "legend": legend,
        "facts": _facts(values),
        "lists": [*lists, ("Notes", values["notes"])],
        "training": [_training(values["training"])] if values["training"] else [],
    }


def _verdict(values: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for found in sets:
        results = [entry["result"] for entry in found["entries"] if entry["result"]]
        parts += _told(found["title"].lower(), results) if results else []
    for name, what in (("missing", "missing in A"), ("extra", "missing in B")):
        parts += [f"{len(values[name])} {what}"] if values[name] else []
    return "; ".join(parts) or "nothing was compared"


def _told(many: str, results: Sequence[Mapping[str, Any]]) -> list[str]:
    failing = sum(not result["ok"] for result in results)
    worst = max(results, key=lambda result: (result["level"], _number(result["rel"])))
    count = f"{failing} of {len(results)} {many} past their tolerance" if failing else f"all {len(results)} {many} within their tolerance"
    return [
        count,
        f"{worst['name']}: {worst['problem']}" if worst["problem"] else f"largest relative error {_words(worst['rel'])} at {worst['name']}",
    ]


def _cause(found: Mapping[str, Any]) -> dict[str, Any]:
    where = f"{found['layer']} ({found['layer_type']})" + (f", {found['place']}" if found["place"] else "")
    cause = f": {found['cause']}" if found["cause"] else ""
    lines = [f"At blob {found['blob']} of layer {where}, relative error {_words(found['error'])}."]
    lines += [found["explanation"]] if found["explanation"] else []
    lines += [f"What to do: {found['fix']}"] if found["fix"] else []
    lines += [_replayed(found)] if found["replay"] is not None else []
    tried = [(name, _words(left)) for name, left in found["tried"]]
    return {"title": f"First divergence{cause}", "lines": lines, "tried": tried}


def _replayed(found: Mapping[str, Any]) -> str:
    side = found["side"].upper()
    subject = f"on {side}'s own inputs, the layer misses {side}'s values by" if side else "the layer is off by"
    left = f"; with the cause put into it, by {_words(found['left'])}" if found["left"] is not None else ""
    return f"Replayed alone as the prototxt has it, {subject} {_words(found['replay'])}{left}."


def _words(error: float | str) -> str:
    return f"{_number(error):.1e}"


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    tolerance = f"{_number(values['tolerance']['atol']):.3g} + {_number(values['tolerance']['rtol']):.3g} · max|B| unless a blob says otherwise"
    facts = [("A, looked at", _side(values["a"])), ("B, the reference", _side(values["b"])), ("tolerance", tolerance)]
    facts += [("asked for as", f"A {values['a']['spec']}, B {values['b']['spec']}")] if values["a"]["spec"] or values["b"]["spec"] else []
    facts += [("inputs", values["inputs"])] if values["inputs"] else []
    if values["nonfinite"]:
        found = values["nonfinite"]
        sides = {"a": "in A", "b": "in B", "both": "in both"}
        facts.append(("first NaN or infinity", f"{found['blob']} of layer {found['layer']}, {sides.get(found['side'], found['side'])}"))
    return facts


def _side(side: Mapping[str, Any]) -> str:
    precision = side["precision"] if side["precision"] not in side["name"] else ""
    return " ".join(part for part in (side["name"], side["version"], precision) if part)


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    losses = training["losses"]
    seen = [value for value in map(_number, (*training["losses_a"], *training["losses_b"])) if math.isfinite(value)]
    extent = f" Upwards from {min(seen):.4g} to {max(seen):.4g}." if seen else ""
    error = losses["problem"] or f"largest difference {_words(losses['worst_abs'])}, relative {_words(losses['worst_rel'])}"
    key = f"Thin: A, wide: B.{extent} The losses {'agree' if losses['ok'] else 'differ'}: {error}."
    return {"steps": len(training["losses_a"]), "key": key}


def _overview(rows: Sequence[OverviewRow]) -> dict[str, Any]:
    failing = sum(not row.ok for row in rows)
    verdict = f"{failing} of {len(rows)} models differ or fail" if failing else f"all {len(rows)} models agree"
    return {"verdict": verdict if rows else "no model was compared", "ok": bool(rows) and not failing}


# A net without its prototxt -------------------------------------------------------------------------------------------


def _from_layers(values: Mapping[str, Any]) -> Boxes:
    """The picture of report.layers: all that a comparison of saved runs knows of its net."""
    rows = [
        Row(
            layer["name"],
            layer["type"],
            family_of(layer["type"]),
            tuple(layer["bottoms"]),
            tuple(layer["tops"]),
            tuple(map(tuple, layer["shapes"])),
            place=layer["place"],
            in_place=len(layer["tops"]) == 1 and [_blob(bottom) for bottom in layer["bottoms"]] == [_blob(layer["tops"][0])],
        )
        for layer in values["layers"]
    ]
    return boxed(values["net"], rows, [blob["name"] for blob in values["blobs"] if blob["output"]])


def _blob(name: str) -> str:
    """The blob of a value's name: `conv1` of `conv1@0`."""
    stem, _, version = name.rpartition("@")
    return stem if stem and version.isdecimal() else name
