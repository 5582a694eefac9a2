"""A comparison's report as text: who, a line for each blob, the place where the two part and why, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .results import FLOOR, BlobResult, Divergence, Report, Side, Training

LISTED = 12  # names that a line lists


def report_text(report: Report, *, every: bool = False) -> str:
    """A line for each blob that differs, or for `every` one, then where and why."""
    lines = [f"{report.net or 'two nets'}, {report.inputs}", f"  A  {_who(report.a)}", f"  B  {_who(report.b)}", ""]
    lines += _table(report, every)
    lines += [f"missing in A: {_some(report.missing)}"] if report.missing else []
    lines += [f"missing in B: {_some(report.extra)}"] if report.extra else []
    lines += [f"not compared, shown by one side alone: {_some(report.unmatched)}"] if report.unmatched else []
    if report.nonfinite:
        who = {"a": "A", "b": "B", "both": "A and B"}[report.nonfinite.side]
        lines.append(f"NaN or infinity first in blob {report.nonfinite.blob!r}, layer {report.nonfinite.layer!r}, in {who}")
    lines += ["", *_divergence(report.divergence)] if report.divergence else []
    lines += ["", *_gradients(report.gradients)] if report.gradients else []
    lines += ["", *_training(report.training)] if report.training else []
    lines += ["", *(f"note: {note}" for note in report.notes)] if report.notes else []
    return "\n".join([*lines, "", _verdict(report)]) + "\n"


def _who(side: Side) -> str:
    parts = [side.name, side.version, f"[{side.spec}]" if side.spec and side.spec != side.name else ""]
    return " ".join(part for part in parts if part)


def _table(report: Report, every: bool) -> Iterator[str]:
    shown = [blob for blob in report.blobs if every or not blob.ok or blob.output]
    if shown:
        width = max([4, *(len(blob.name) for blob in shown)])
        yield f"  {'blob':<{width}}  {'shape':<18} max|a-b|   of max|b|   mean|a-b|  needs rtol"
        yield from (_line(blob, width) for blob in shown)
    hidden = len(report.blobs) - len(shown)
    if hidden:
        yield f"  {hidden} more agree (--every lists them)"


def _line(blob: BlobResult, width: int) -> str:
    shape = "x".join(map(str, blob.shape)) or "one value"
    start = f"  {blob.name:<{width}}  {shape:<18}"
    if blob.problem:
        return f"{start} {blob.problem}"
    top = "".join(f", top {k} the same in {share:.0%}" for k, share in blob.top if share < 1)
    where = "" if blob.ok else f"DIFFERS{f' at {list(blob.index)}' if blob.index else ''}: {blob.value_a:.6g} and {blob.value_b:.6g}"
    return f"{start} {blob.worst_abs:8.1e}    {blob.worst_rel:8.1e}    {blob.mean:8.1e}    {blob.needs_rtol:8.1e}  {where or 'ok'}{top}"


def _divergence(d: Divergence) -> Iterator[str]:
    where = f", {d.place}" if d.place else ""
    yield f"they part at blob {d.blob!r}: layer {d.layer!r} ({d.layer_type}{where})" if d.layer else f"they part at blob {d.blob!r}"
    if d.replay is not None:
        yield f"  the layer alone, replayed as the prototxt has it: error {d.replay:.1e}"
    if d.cause:
        yield f"  suspected cause: {d.cause}" + (f" (with it, {d.left:.1e} is left)" if d.left is not None else "")
    if d.explanation:
        yield f"  {d.explanation}"
    if d.fix:
        yield f"  fix: {d.fix}"
    if d.tried and not d.cause:
        yield f"  tried: {', '.join(f'{cause} (leaves {left:.0e})' for cause, left in d.tried)}"


def _gradients(gradients: Sequence[BlobResult]) -> Iterator[str]:
    bad = [g for g in gradients if not g.ok]
    worst = max(gradients, key=lambda g: (bool(g.problem), g.worst_rel))
    yield f"gradients of {len(gradients)} parameter blobs: worst {worst.worst_rel:.1e} at {worst.name}" + ("" if bad else ", ok")
    width = max([4, *(len(g.name) for g in bad)])
    yield from (_line(g, width) for g in bad[:LISTED])


def _training(training: Training) -> Iterator[str]:
    groups = {"losses": (training.losses,), "weights": training.weights, "history": training.histories}
    yield f"{len(training.losses_b)} solver steps"
    for name, results in groups.items():
        if results:
            worst = max(results, key=lambda r: (bool(r.problem), r.worst_rel))
            verdict = "ok" if all(r.ok for r in results) else worst.problem or "DIFFERS"
            yield f"  {name:<8} worst {worst.worst_rel:8.1e} at {worst.name}  {verdict}"
    split = next(
        (i for i, (a, b) in enumerate(zip(training.losses_a, training.losses_b, strict=False)) if abs(a - b) > 1e-4 * max(abs(b), FLOOR)), None
    )
    if split is not None:
        yield f"  the losses part at step {split}: {training.losses_a[split]:.6g} and {training.losses_b[split]:.6g}"


def _verdict(report: Report) -> str:
    if report:
        worst = report.worst
        told = [f"{len(report.blobs)} blobs, worst {worst.worst_rel:.1e} at {worst.name}"] if worst else []
        told += [f"{len(report.gradients)} gradients"] if report.gradients else []
        told += [f"losses, weights and history of {len(report.training.losses_b)} steps"] if report.training else []
        return f"agree: {'; '.join(told)}"
    if not report.blobs and not report.gradients and not report.training:
        return "DIFFER: nothing was compared"
    groups = {"blobs": report.blobs, "gradients": report.gradients}
    told = [f"{sum(not r.ok for r in results)} of {len(results)} {name}" for name, results in groups.items() if results]
    told += ["blobs are missing"] if report.missing or report.extra else []
    told += ["the solver's steps"] if report.training and not report.training.ok else []
    return f"DIFFER: {', '.join(told)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
