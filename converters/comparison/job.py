"""One model of many, in its own process: a JSON object on stdin, a row as JSON on the last line of stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from prototxt import DecantError
from prototxt.files import confine

from .many import Row
from .results import Report, Tolerance


def compared(job: dict[str, Any]) -> Row:
    """The model against each reference; one that is not available here is a note, and none at all a problem."""
    from .command import Comparison, run
    from .runners.base import Unavailable

    options = dict(job["options"])
    options["tolerance"] = Tolerance(**options["tolerance"]) if options["tolerance"] else None
    weights = Path(job["weights"]) if job["weights"] else None
    row = Row(job["name"], True)
    notes, against = [], []
    for reference in job["against"] or [*job["recordings"], "onnxruntime"]:
        label = Path(reference).stem if reference.endswith(".npz") else reference.replace(":", "-")
        target = Path(job["folder"]) / label
        try:
            report = run(Comparison(job["prototxt"], reference, weights=weights, report=target, **options))
        except Unavailable as exc:
            notes.append(f"{reference}: {exc}")
            continue
        if report is not None:
            against.append(label)
            row = _joined(row, report, f"{job['name']}/{label}/report.html")
    if not against:
        return Row(job["name"], False, problem="; ".join(notes) or "no reference")
    return Row(**{**_fields(row), "against": tuple(against), "notes": tuple(notes)})


def _joined(row: Row, report: Report, page: str) -> Row:
    """The row with one more report: the worst counts."""
    worst = report.worst
    error = (float("inf") if worst.problem else worst.worst_rel) if worst else None
    nearer = row.worst is not None and (error is None or error <= row.worst) and not (row.ok and not report)
    values = _fields(row) | {
        "ok": row.ok and bool(report),
        "blobs": row.blobs + len(report.blobs),
        "failing": row.failing + sum(not blob.ok for blob in report.blobs) + len(report.missing) + len(report.extra),
        "cause": row.cause or (report.divergence.cause if report.divergence else ""),
    }
    if not nearer:
        first = report.divergence.blob if report.divergence else ""
        values |= {"worst": error, "worst_blob": first or (worst.name if worst else ""), "page": page}
    return Row(**values)


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


def converted(job: dict[str, Any]) -> Row:
    """The model converted, and its proof card."""
    from ..convert import Options, convert

    options = dict(job["options"])
    golden = tuple(Path(path) for path in job["recordings"])
    weights = Path(job["weights"]) if job["weights"] else None
    asked = Options(**options | {"stages": tuple(options["stages"]), "mean": tuple(options["mean"]), "golden": golden})
    done = convert(Path(job["prototxt"]), weights, Path(job["folder"]), asked, lambda text: contextlib.nullcontext(), lambda graph: None)
    measured = [m for m in done.card.measurements if m.error is not None]
    worst = max(measured, key=lambda m: (m.error or 0.0) / (m.limit or 1.0), default=None)
    notes = tuple(f"{m.against}: {m.note}" for m in done.card.measurements if m.error is None)
    return Row(
        job["name"],
        bool(done),
        tuple(m.against for m in done.card.measurements),
        blobs=len(done.graph.outputs),
        failing=sum(not m.ok for m in done.card.measurements),
        worst=worst.error if worst else None,
        worst_blob=worst.worst if worst else "",
        page=next((f"{job['name']}/{path.name}" for path in done.files if path.suffix == ".html"), ""),
        notes=notes,
    )


def main() -> int:
    """Do the job of stdin."""
    job = json.loads(sys.stdin.read())
    try:
        confine(job["root"] or None)
        with contextlib.redirect_stdout(sys.stderr):
            row = compared(job) if job["kind"] == "compare" else converted(job)
    except DecantError as exc:
        row = Row(job["name"], False, problem=" ".join(str(exc).split())[:300])
    sys.stdout.write(json.dumps(row.to_dict()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
