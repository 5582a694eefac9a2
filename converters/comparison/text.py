"""A comparison's report as text."""

from __future__ import annotations

from .results import BlobResult, Report


def report_text(report: Report, *, every: bool = False) -> str:
    """A line for each blob that differs, or for `every` one, then where and why."""
    lines = [f"{report.net or 'the net'}: A {report.a.name} {report.a.version}, B {report.b.name} {report.b.version}"]
    lines += [_line(blob) for blob in report.blobs if every or not blob.ok]
    return "\n".join(lines) + "\n"


def _line(blob: BlobResult) -> str:
    return f"  {blob.name:<32} {blob.worst_abs:9.2e} {blob.worst_rel:9.2e} {'ok' if blob.ok else blob.problem or 'DIFFERS'}"
