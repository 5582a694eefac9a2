"""The tables that the projects write."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prototxt.files import write_file


def write_csv(path: str | Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """Write a CSV, all or nothing; the number of rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_file(path, text.getvalue())
    return len(rows)
