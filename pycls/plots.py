"""`plot`: loss, learning rate and what the tests measured, of one or several runs, from their logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prototxt import FileProblem, FormatError
from prototxt.files import atomic_path

from .runlog import read_log

KINDS = (".svg", ".png", ".pdf")


def find_log(run: str | Path) -> Path:
    """The log of a run: the file itself, or the one in a folder. FileProblem if there is none, or more than one."""
    path = Path(run)
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.jsonl"))
    if len(found) != 1:
        what = f"holds {len(found)} logs: {', '.join(p.name for p in found)}; name one" if found else "holds no log (*.jsonl)"
        raise FileProblem(f"{path}: {what}")
    return found[0]


def plot(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Draw the runs into one picture, .svg, .png or .pdf by the suffix of `out`; by default beside the first log, as SVG."""
    logs = [find_log(run) for run in runs]
    target = Path(out) if out is not None else logs[0].with_suffix(".svg")
    if target.suffix not in KINDS:
        raise FormatError(f"{target}: pictures are {', '.join(KINDS)}")
    records = {log.stem: read_log(log) for log in logs}
    if not any(r["kind"] in ("train", "test") for run in records.values() for r in run):
        raise FormatError(f"{logs[0]}: the run has not got as far as its first record of training or test")
    figure = _figure(records)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format=target.suffix[1:])
    return target


def _figure(runs: dict[str, list[dict[str, Any]]]) -> Any:
    """One panel for losses, one for the other outputs of tests, one for the rate, above one another; on a canvas that needs no display."""
    from matplotlib.figure import Figure

    losses, measures = _test_curves(runs)
    figure = Figure(figsize=(8, 8 if measures else 6), layout="constrained")
    panels = figure.subplots(3 if measures else 2, 1, sharex=True, squeeze=False)[:, 0]
    many = len(runs) > 1
    for name, records in runs.items():
        title = f"{name}, " if many else ""
        train = [r for r in records if r["kind"] == "train"]
        at = [r["iteration"] for r in train]
        panels[0].plot(at, [_number(r["smoothed_loss"]) for r in train], label=f"{title}training loss", linewidth=1)
        panels[-1].plot(at, [_number(r["lr"]) for r in train], label=f"{title}learning rate", linewidth=1)
    for panel, curves in ((panels[0], losses), (panels[1], measures)):
        for label, points in curves.items():
            panel.plot(*zip(*points, strict=True), "o-", label=label, markersize=3, linewidth=1)
    for panel, label in zip(panels, ["loss", *(["tests"] if measures else []), "learning rate"], strict=True):
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    panels[-1].set_xlabel("iteration")
    figure.suptitle(", ".join(runs))
    return figure


Curves = dict[str, list[tuple[int, float]]]


def _test_curves(runs: dict[str, list[dict[str, Any]]]) -> tuple[Curves, Curves]:
    """Curves of the tests' outputs by label: those whose name says loss, and the others."""
    losses: Curves = {}
    measures: Curves = {}
    for name, records in runs.items():
        for record in (r for r in records if r["kind"] == "test"):
            for output, value in record["outputs"].items():
                if isinstance(value, list):
                    continue  # one number a class and the like: no curve
                label = f"{name}, {output}" if len(runs) > 1 else f"test {output}" + (f" (net {record['net']})" if record["net"] else "")
                (losses if "loss" in output.lower() else measures).setdefault(label, []).append((record["iteration"], _number(value)))
    return losses, measures


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
