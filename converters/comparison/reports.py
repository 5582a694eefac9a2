"""A comparison as files: report.json, report.txt and the page report.html in one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prototxt import FileProblem
from prototxt.files import write_file

from .page import OverviewRow, write_overview, write_page
from .results import Report

if TYPE_CHECKING:
    from ..graph import Graph
    from .many import Row


def write_report(report: Report, folder: Path, graph: Graph | None = None) -> list[Path]:
    """Write the three files; their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileProblem(f"{folder}: cannot be made a folder for the report: {exc.strerror}") from exc
    files = [folder / "report.json", folder / "report.txt", folder / "report.html"]
    write_file(files[0], json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")
    write_file(files[1], report.text(every=True))
    write_page(report, graph, files[2])
    return files


def write_rows(rows: Sequence[Row], path: Path, title: str) -> None:
    """The page of many models, a row each, with a link to the worst comparison's page."""
    listed = [
        OverviewRow(
            row.name,
            row.ok,
            b=", ".join(row.against),
            blobs=row.blobs,
            failing=row.failing,
            worst=row.worst,
            worst_blob=row.worst_blob,
            cause=row.cause,
            seconds=row.seconds,
            page=row.page,
            problem=row.problem,
        )
        for row in rows
    ]
    write_overview(listed, path, title)
