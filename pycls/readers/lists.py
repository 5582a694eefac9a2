"""Lists of a path and numbers: Caffe's `path 3`, Paddle's `path<TAB>1,0,1`, DeepDetect's `path 1 0 -1`.

One number is a class, several are K labels, or K classes of K tasks where the caller says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prototxt import LabelError

from ..labels import Column, LabelTable, Problems, Row, Words, make_table, multi_hot_list, numbered, text_lines

MOST_CLASSES = 1 << 24  # what a Caffe label, a float, still counts exactly


def read_caffe(
    path: str | Path, *, tasks: Sequence[str] = (), classes: Sequence[str] = (), missing: Sequence[str] = (), negative: Sequence[str] = ()
) -> LabelTable:
    """`path label`, as ImageData reads it: a class. With several labels `tasks` names a multi-class task a column; without, they are K labels.

    A path may hold spaces; the numbers at the end of a line, as many as the first line has, are its labels.
    """
    rows = _rows(path, len(tasks))
    words = Words(missing, negative)
    if len(tasks) > 1 or len(rows[0][2]) == 1:
        return _classes(path, rows, tasks or ("label",), classes, words)
    return multi_hot_list(path, rows, words, tasks[0] if tasks else "labels", classes)


def read_deepdetect(path: str | Path, *, classes: Sequence[str] = (), missing: Sequence[str] = (), negative: Sequence[str] = ()) -> LabelTable:
    """`path i j k`: a class, or K labels, of which DeepDetect's own training ignores -1."""
    return read_caffe(path, classes=classes, missing=missing, negative=negative)


def read_paddle(path: str | Path, *, classes: Sequence[str] = (), missing: Sequence[str] = (), negative: Sequence[str] = ()) -> LabelTable:
    """`path<TAB>1,0,1`: K labels; `path 3` or `path<TAB>3`: a class."""
    rows: list[Row] = []
    for number, line in text_lines(path):
        cut = "\t" if "\t" in line else " "
        file, _, labels = line.strip().rpartition(cut)
        rows.append((number, file.strip(), labels.split(",")))
    _refuse_empty(path, rows)
    words = Words(missing, negative)
    if len(rows[0][2]) == 1:
        return _classes(path, rows, ("label",), classes, words)
    return multi_hot_list(path, rows, words, classes=classes)


def _rows(path: str | Path, count: int) -> list[Row]:
    """Path and labels of each line; `count` labels, or as many as the first line ends with."""
    lines = [(n, line.split()) for n, line in text_lines(path)]
    if not lines:
        raise LabelError(f"{path}: the file is empty")
    problems, rows = Problems(path), list[Row]()
    width = count or _labels(lines[0][1])
    for number, parts in lines:
        if len(parts) <= width or (not count and _labels(parts) != width):
            problems.add(number, f"{min(_labels(parts), len(parts) - 1)} labels, and {'the tasks are' if count else 'the first row has'} {width}")
        else:
            rows.append((number, " ".join(parts[:-width]), parts[-width:]))
    problems.stop()
    return rows


def _labels(parts: Sequence[str]) -> int:
    """How many words at the end of a line are labels: numbers or NA, the first word apart, which is the path."""
    count = 0
    for word in reversed(parts[1:]):
        if not (word.lstrip("-").isdigit() or word in ("NA", "?")):
            break
        count += 1
    return max(count, 1)


def _refuse_empty(path: str | Path, rows: Sequence[Row]) -> None:
    if not rows:
        raise LabelError(f"{path}: the file is empty")
    problems = Problems(path)
    for number, file, _ in rows:
        if not file:
            problems.add(number, "no path and label with a tab or a space between")
    problems.stop()


def _classes(path: str | Path, rows: Sequence[Row], tasks: Sequence[str], classes: Sequence[str], words: Words) -> LabelTable:
    """Multi-class tasks of whole numbers; without `classes` there are as many as the largest number says."""
    columns = []
    for i, task in enumerate(tasks):
        found = {row[2][i] for row in rows if len(row[2]) == len(tasks)}
        numbers = [int(word) for word in found if word.isdigit() and len(word) < 9]
        count = max(numbers, default=0) + 1
        if count > MOST_CLASSES:
            raise LabelError(f"{path}: the label {count - 1} of task {task!r} is no class")
        columns.append(Column(task, "multiclass", numbered(len(classes) or count)))
    table = make_table(path, rows, columns, words)
    named = [Column(c.name, c.kind, tuple(classes)) if classes else c for c in columns]
    return replace(table, columns=tuple(named))
