"""CelebA: list_attr_celeba.txt (the count, the names, a row an image of -1 and 1), its partition and its identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from prototxt import LabelError

from ..labels import Column, LabelTable, Problems, Row, Words, make_table, text_lines

SPLITS = {"0": "train", "1": "val", "2": "test"}


def read_celeba(
    path: str | Path,
    *,
    as_tasks: bool = False,
    partition: str | None = None,
    identities: str | None = None,
    missing: Sequence[str] = (),
    negative: Sequence[str] = (),
) -> LabelTable:
    """The attributes as one multi-label task, or (`as_tasks`) as a binary task each. -1 is a negative label here: `negative: [-1]` says so.

    `partition` (list_eval_partition.txt) gives each row its split, `identities` (identity_CelebA.txt) its group `identity`.
    """
    lines = text_lines(path)
    if len(lines) < 3 or not lines[0][1].strip().isdigit():
        raise LabelError(f"{path}:1: CelebA's list starts with the number of rows and a line of attribute names")
    names, rows = lines[1][1].split(), [_row(number, line) for number, line in lines[2:]]
    if int(lines[0][1]) != len(rows):
        raise LabelError(f"{path}:1: says {int(lines[0][1])} rows, and there are {len(rows)}; is the file cut off?")
    problems = Problems(path)
    for number, _, cells in rows:
        if len(cells) != len(names):
            problems.add(number, f"{len(cells)} values, and line 2 names {len(names)} attributes")
    problems.stop()
    words = Words(missing, negative)
    if as_tasks:
        table = make_table(path, rows, [Column(name, "binary") for name in names], words)
    else:
        table = make_table(path, [(n, file, [" ".join(c)]) for n, file, c in rows], [Column("attributes", "multilabel", tuple(names))], words)
    notes = {}
    if partition is not None:
        notes["split"] = _beside(table, partition, SPLITS)
    if identities is not None:
        notes["identity"] = _beside(table, identities)
    return replace(table, notes=notes)


def _row(number: int, line: str) -> Row:
    file, *cells = line.split()
    return number, file, cells


def _beside(table: LabelTable, path: str, names: dict[str, str] | None = None) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """A second list's word for each row of the table."""
    found: dict[str, str] = {}
    for number, line in text_lines(path):
        parts = line.split()
        if len(parts) != 2 or (names and parts[1] not in names):
            raise LabelError(f"{path}:{number}: not a file and {'one of ' + ', '.join(names) if names else 'its group'}")
        found[parts[0]] = names[parts[1]] if names else parts[1]
    lost = [i for i, file in enumerate(table.paths) if file not in found]
    if lost:
        raise LabelError(f"{path}: has no row for {table.paths[lost[0]]} ({table.places[lost[0]]}), nor for {len(lost) - 1} others")
    return np.array([found[file] for file in table.paths], dtype=object)
