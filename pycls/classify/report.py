"""The report of a net on a list: one page that needs no network, and the same facts as JSON beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototxt import FileProblem, LabelError
from prototxt.files import write_file

from .. import calibration
from ..labels import LabelTable
from ..metrics import evaluate
from ..tasks import Task
from ..thresholds import decided, risk_coverage, tune
from .decisions import MAIN, Decision, Decisions, answers, figures, tensors
from .evaluation import Predictions
from .images import Array, load_image
from .trained import Trained

WORST = 12  # samples with pictures, a task
CURVES = 12  # curves in one figure
PAIRS = 10  # confused pairs
GROUPS = 60  # groups in a table
POINTS = 120  # of a curve
THUMB = 96  # pixels


def write_report(trained: Trained, predictions: Predictions, decisions: Decisions, split: str, path: Path) -> list[Path]:
    """Write the page and, with the suffix .json, its facts; both paths."""
    made = facts(trained, predictions, decisions, split)
    beside = path.with_suffix(".json")
    write_file(beside, json.dumps(made, indent=1) + "\n")
    write_file(path, page(made, _pictures(trained, predictions, made)))
    return [path, beside]


def facts(trained: Trained, predictions: Predictions, decisions: Decisions, split: str) -> dict[str, Any]:
    """All that the page shows, as plain values, but for the pictures."""
    counts = trained.facts["counts"]
    whole = figures(predictions, decisions, counts)
    for task in predictions.tasks:
        of = whole["tasks"][task.name]
        if of["labels"]:
            of |= _details(task, predictions, decisions[task.name], counts.get(task.name))
    return {
        "name": trained.config.name,
        "split": split,
        "list": predictions.table.file,
        "rows": len(predictions),
        "broken": list(predictions.broken),
        "epoch": trained.facts["epoch"],
        "net": trained.config.model.net,
        "score": whole["score"],
        "loss": whole["loss"],
        "tasks": whole["tasks"],
        "groups": _groups(trained, predictions, decisions),
    }


def _details(task: Task, predictions: Predictions, decision: Decision, counts: Sequence[int] | None) -> dict[str, Any]:
    logits, labels, mask = tensors(predictions, task)
    calibrated = decision.calibrated(logits)
    details: dict[str, Any] = {
        "main": MAIN[task.kind],
        "temperature": decision.temperature,
        "decision_notes": list(decision.notes),
        "train_counts": list(counts or ()),
        "worst": _worst(task, predictions, decision, logits, labels, mask),
    }
    if task.kind == "age":
        return details
    before, after = (calibration.believed(task, z, labels, mask) for z in (logits, calibrated))
    details["reliability"] = [_reliability(*before), _reliability(*after)]
    details["uncalibrated"] = {"ECE": calibration.ece(*before), "NLL": calibration.nll(task, logits, labels, mask)}
    details["curves"] = _curves(task, calibrated, labels, mask)
    if task.kind == "multiclass":
        details["confused"] = _confused(task, predictions, logits, labels, mask)
        curve = risk_coverage(*after)
        details["risk_coverage"] = _thinned(curve.coverage, curve.risk)
    elif decision.thresholds:
        details["thresholds"] = _thresholds(task, decision, calibrated, labels, mask)
    return details


def _reliability(confidence: Tensor, right: Tensor) -> list[list[float]]:
    """[confidence, accuracy, samples] of each bin that has some."""
    bins = calibration.reliability(confidence, right)
    return [[float(c), float(a), int(n)] for n, c, a in zip(*bins, strict=True) if n]


def _confused(task: Task, predictions: Predictions, logits: Tensor, labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """The pairs of label and answer that occur most beside the right ones."""
    from ..metrics import confusion

    matrix = confusion(logits.argmax(1), torch.where(mask, labels, 0), mask, task.outputs)
    sums = matrix.sum(1)
    pairs = [(int(matrix[i, j]), i, j) for i, j in torch.nonzero(matrix).tolist() if i != j]
    ranked = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:PAIRS]
    return [{"label": task.names[i], "answer": task.names[j], "count": n, "share": n / int(sums[i])} for n, i, j in ranked]


def _curves(task: Task, logits: Tensor, labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """Precision over recall, and true over false positives: of each label, or each class against the others; the hardest first."""
    from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

    from ..metrics import average_precision

    scores = task.probabilities(logits)
    names = task.names[1:] if task.kind == "binary" else task.names
    if task.kind == "multiclass":
        hot = torch.nn.functional.one_hot(torch.where(mask, labels, 0).long(), task.outputs)
        kept = mask[:, None].expand_as(scores)
    else:
        hot, kept = labels.reshape(scores.shape), mask.reshape(scores.shape)
    precisions = average_precision(scores, hot, kept)
    order = [k for k in precisions.argsort().tolist() if not precisions[k].isnan() and bool((hot[kept[:, k], k] < 0.5).any())]
    made = []
    for k in order[:CURVES]:
        rows = kept[:, k]
        precision, recall, _ = binary_precision_recall_curve(scores[rows, k], hot[rows, k].long())
        false, true, _ = binary_roc(scores[rows, k], hot[rows, k].long())
        made.append({"name": names[k], "AP": float(precisions[k]), "pr": _thinned(recall, precision), "roc": _thinned(false, true)})
    return made


def _thinned(x: Tensor, y: Tensor) -> list[list[float]]:
    """At most POINTS points of a curve, both ends among them."""
    index = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return [[round(float(x[i]), 5), round(float(y[i]), 5)] for i in index]


def _thresholds(task: Task, decision: Decision, logits: Tensor, labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """F1 by label at 0.5, at the threshold of the validation list, and at the best one of this list, which nobody can know before."""
    from ..metrics import label_counts

    scores = task.probabilities(logits)
    labels, mask = labels.reshape(scores.shape), mask.reshape(scores.shape)
    chosen = torch.tensor(decision.thresholds, dtype=scores.dtype)
    best, _ = tune(scores, labels, mask)
    columns = [label_counts(decided(scores, t), labels, mask).f1() for t in (0.5, chosen, best)]
    names = task.names[1:] if task.kind == "binary" else task.names
    return [
        {"label": name, "threshold": float(chosen[k]), "at_half": _none(half), "tuned": _none(tuned), "unattainable": _none(top)}
        for k, (name, half, tuned, top) in enumerate(zip(names, *(c.tolist() for c in columns), strict=True))
    ]


def _worst(task: Task, predictions: Predictions, decision: Decision, logits: Tensor, labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """The samples that the net is most wrong about: the highest cost of a label, or the largest error in years."""
    cost = _cost(task, decision.calibrated(logits), labels)
    cost = torch.where(mask, cost, -1.0).reshape(len(logits), -1)
    highest, label = cost.max(1)
    values, present, sure = answers(task, decision, logits)
    made = []
    for row in highest.argsort(descending=True, stable=True)[:WORST].tolist():
        if float(highest[row]) < 0:
            break
        k = int(label[row])
        said = values[row, k] if task.kind == "multilabel" else values[row]
        there = present[row, k] if task.kind == "multilabel" else present[row]
        meant = labels[row, k] if task.kind == "multilabel" else labels[row]
        confidence = sure[row, k] if task.kind == "multilabel" else sure[row]
        made.append(
            {
                "row": row,
                "path": predictions.table.paths[row],
                "place": predictions.table.places[row],
                "label": _name(task, meant, k),
                "answer": _name(task, said, k) if there else "NA",
                "confidence": None if np.isnan(confidence) else float(confidence),
                "cost": float(highest[row]),
                "right": bool(there and float(said) == float(meant)),
            }
        )
    return made


def _cost(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """-log P(label) by sample or label; of an age the error in years."""
    if task.kind == "age":
        return (task.activate(logits) - labels).abs()
    if task.kind == "multiclass":
        scores = task.probabilities(logits).clamp(min=1e-30).log()
        return -scores.gather(1, labels.clamp(0, task.outputs - 1).long().unsqueeze(1)).squeeze(1)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits.reshape(labels.shape), labels.double(), reduction="none")


def _name(task: Task, value: Any, k: int) -> str:
    """A label or an answer in words."""
    if task.kind == "age":
        return f"{float(value):.1f}"
    if task.kind == "multilabel":
        return f"{'' if float(value) else 'not '}{task.names[k]}"
    return task.names[int(value)]


def _groups(trained: Trained, predictions: Predictions, decisions: Decisions) -> dict[str, Any]:
    """Each task's figure in each group of the list: of `data.group`, or of every note that has no more than GROUPS of them."""
    table, wanted = predictions.table, trained.config.data.group
    notes = [wanted] if wanted in table.notes else [n for n, v in table.notes.items() if n != "split" and 1 < len(set(v)) <= GROUPS]
    made: dict[str, Any] = {}
    for note in notes:
        rows = []
        for name in sorted(set(table.notes[note]))[:GROUPS]:
            inside = np.flatnonzero(table.notes[note] == name)
            rows.append({"group": name or "(none)", "rows": len(inside), "tasks": _group(predictions, decisions, inside)})
        made[note] = rows
    return made


def _group(predictions: Predictions, decisions: Decisions, rows: Array) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for task in predictions.tasks:
        logits, labels, mask = (tensor[rows] for tensor in tensors(predictions, task))
        decision = decisions[task.name]
        found = evaluate(task, decision.calibrated(logits), labels, mask, threshold=decision.threshold())
        if found["labels"]:
            made[task.name] = {"labels": found["labels"], **{key: found["metrics"].get(key) for key in (MAIN[task.kind], "accuracy")}}
    return made


def _none(value: float) -> float | None:
    return None if np.isnan(value) else value


# The page -------------------------------------------------------------------------------------------------------------


def page(made: Mapping[str, Any], pictures: Mapping[int, str]) -> str:
    """The HTML page of the facts; `pictures` are data URLs by row."""
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "percent": lambda v: "-" if v is None else f"{100 * v:.1f} %", "points": _points}
    return environment.from_string(template).render(facts=made, pictures=pictures)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _points(curve: Sequence[Sequence[float]], size: float = 200) -> str:
    """Points of the unit square for an SVG polyline."""
    return " ".join(f"{x * size:.1f},{(1 - y) * size:.1f}" for x, y, *_ in curve)


def _pictures(trained: Trained, predictions: Predictions, made: Mapping[str, Any]) -> dict[int, str]:
    """The worst samples as small PNGs inside data URLs; at most three channels of each."""
    rows = {worst["row"] for of in made["tasks"].values() for worst in of.get("worst", ())}
    return {row: url for row in sorted(rows) if (url := _picture(trained, predictions.table, row))}


def _picture(trained: Trained, table: LabelTable, row: int) -> str:
    import cv2

    try:
        image = load_image(table.files(row), trained.config.data.image)
    except (LabelError, FileProblem):
        return ""
    if image.shape[0] == 2:
        image = image[:1]
    shown = image[:3][::-1] if trained.config.data.image.order == "RGB" else image[:3]
    side = THUMB / max(shown.shape[1:])
    how = cv2.INTER_AREA if side < 1 else cv2.INTER_NEAREST
    small = cv2.resize(np.ascontiguousarray(shown.transpose(1, 2, 0)), None, fx=side, fy=side, interpolation=how)
    done, data = cv2.imencode(".png", small)
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode() if done else ""
