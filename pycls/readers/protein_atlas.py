"""Human Protein Atlas (Kaggle 2018): `Id,Target` with indices between spaces; an image is four grey files, one a stain."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from prototxt import LabelError

from ..labels import Column, LabelTable, Problems, Row, Words, make_table, numbered, text_lines

LABELS = 28
STAINS = ("red", "green", "blue", "yellow")


def read_protein_atlas(
    path: str | Path, *, classes: Sequence[str] = (), stains: Sequence[str] = STAINS, ending: str = ".png", task: str = "organelle"
) -> LabelTable:
    """One multi-label task; `classes` names the 28 labels. A row without Target (a submission to fill) has all of them missing.

    The image of row `abc` is abc_red.png, abc_green.png, ...: a channel for each of `stains`.
    """
    names = tuple(classes) or numbered(LABELS)
    lines = text_lines(path)
    header = lines[0][1].split(",") if lines else []
    if header[:1] != ["Id"] or len(header) not in (1, 2):
        raise LabelError(f"{path}:1: the header is Id,Target, not {','.join(header)!r}")
    problems, rows = Problems(path), list[Row]()
    for (number, _), cells in zip(lines[1:], csv.reader(io.StringIO("\n".join(line for _, line in lines[1:]))), strict=True):
        if len(cells) != len(header):
            problems.add(number, f"{len(cells)} columns, and the header has {len(header)}")
            continue
        indices = cells[1].split() if header[1:] == ["Target"] else []
        wrong = [i for i in indices if not (i.isdigit() and int(i) < len(names))]
        if wrong:
            problems.add(number, f"the label {wrong[0]!r}, and there are 0 to {len(names) - 1}")
            continue
        hot = {int(i) for i in indices}
        rows.append((number, cells[0], [" ".join("1" if k in hot else "0" for k in range(len(names))) if indices else "NA"]))
    problems.stop()
    return make_table(path, rows, [Column(task, "multilabel", names)], Words(), planes=tuple(f"_{s}{ending}" for s in stains))
