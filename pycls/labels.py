"""One label file for all tasks: a typed header, a row an image, NA wherever a label is not known.

    #path   gender:class[male,female]  hat:binary  age:age[0..100+]  organelle:multi[3]  camera:group
    a.jpg   female                     1           31                0 NA 1              north
    b.jpg   NA                         0           ?                 NA                  south

Cells are separated by tabs. `NA`, `?` and an empty cell are missing labels; another word (`-1`) is one only if it is declared. A file
without a header is a multi-label list: a path and K values of 0 or 1. Columns of kind group, split and source are no tasks: they say
which rows belong together (a camera, a person), which split a row is of, and where it comes from.

A LabelTable holds what any reader of `pycls.readers` makes of any list: values and masks by task, each row with its place for messages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from prototxt import LabelError
from prototxt.files import read_file, write_file

Array = np.ndarray[Any, Any]

NA = ("NA", "?", "")
KINDS = ("binary", "multiclass", "multilabel", "age")
NOTES = ("group", "split", "source")
LIMIT = 4 << 30  # bytes of a label file
SHOWN = 10  # wrong rows that one error lists


@dataclass(frozen=True, slots=True)
class Column:
    """A task as a label file knows it: `classes` are names of classes, of labels, or the years of an age ("0", ..., "100+")."""

    name: str
    kind: str
    classes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Values in a row: K of a multi-label task, else 1."""
        return len(self.classes) if self.kind == "multilabel" else 1

    def header(self) -> str:
        """The column as a header writes it: `gender:class[male,female]`."""
        if self.kind == "age":
            return f"{self.name}:age[{self.classes[0]}..{self.classes[-1]}]"
        listed = len(self.classes) if self.classes == numbered(len(self.classes)) else ",".join(self.classes)
        word = {"binary": "binary", "multiclass": "class", "multilabel": "multi"}[self.kind]
        return f"{self.name}:{word}" + (f"[{listed}]" if self.classes or self.kind != "binary" else "")


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The rows of a label file, in its order.

    `values[task]` is float32 [N] (binary, age), int64 [N] (multiclass) or float32 [N, K] (multilabel); `present[task]` is bool of the same
    shape, and a value that is not present is 0. `planes` are endings of files that make up one image, a channel each; without any, a path
    is a file. `places[i]` says where row i stands. `raw[task]` counts the words of the whole file, for the tasks where -1 is among them.
    """

    file: str
    paths: tuple[str, ...]
    columns: tuple[Column, ...]
    values: Mapping[str, Array]
    present: Mapping[str, Array]
    notes: Mapping[str, Array] = field(default_factory=dict)
    planes: tuple[str, ...] = ()
    places: Sequence[str] = ()
    raw: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def column(self, name: str) -> Column:
        """The task of a name; LabelError with the nearest one."""
        for column in self.columns:
            if column.name == name:
                return column
        raise LabelError(f"{self.file}: has no task {name!r}{suggest(name, [c.name for c in self.columns])}")

    def take(self, rows: Sequence[int] | Array) -> LabelTable:
        """These rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            values={name: v[index] for name, v in self.values.items()},
            present={name: v[index] for name, v in self.present.items()},
            notes={name: v[index] for name, v in self.notes.items()},
            places=tuple(self.places[i] for i in index),
        )

    def split(self, name: str) -> LabelTable:
        """The rows whose `split` column says `name`; LabelError if there is no such column, or no such row."""
        if "split" not in self.notes:
            raise LabelError(f"{self.file}: has no column of kind split, so it has no part {name!r}")
        rows = np.flatnonzero(self.notes["split"] == name)
        if not len(rows):
            raise LabelError(f"{self.file}: no row is of split {name!r}{suggest(name, sorted(set(self.notes['split'])))}")
        return self.take(rows)

    def files(self, row: int) -> list[str]:
        """The files of one image: its path, or one a plane."""
        return [self.paths[row] + plane for plane in self.planes] if self.planes else [self.paths[row]]


def read_label_file(path: str | Path, *, missing: Sequence[str] = (), negative: Sequence[str] = ()) -> LabelTable:
    """Read a label file; `missing` are further words for a missing label, `negative` for a 0. LabelError lists the rows at fault."""
    lines = text_lines(path)
    if not lines:
        raise LabelError(f"{path}: the file is empty")
    first = lines[0][1]
    words = Words(missing, negative)
    if first.startswith("#"):
        return _typed(path, first[1:], lines[1:], words)
    return multi_hot_list(path, [(n, *_cut(line)) for n, line in lines], words)


def write_label_file(table: LabelTable, path: str | Path) -> None:
    """Write a table as a label file, all or nothing; reading it gives the same values."""
    for column in table.columns:
        odd = [n for n in (column.name, *column.classes) if re.search(r"[,:\[\]\t\n]", n)]
        if odd:
            raise LabelError(f"{path}: the name {odd[0]!r} has a sign that a header uses: , : [ ] or a tab")
    columns = ["#path", *(c.header() for c in table.columns), *(f"{name}:{_note_kind(name)}" for name in table.notes)]
    texts = [_texts(c, table.values[c.name], table.present[c.name]) for c in table.columns]
    texts += [[str(v) for v in values] for values in table.notes.values()]
    rows = ("\t".join(cells) for cells in zip(table.paths, *texts, strict=True))
    write_file(path, "\n".join(["\t".join(columns), *rows]) + "\n")


# What all readers share -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Words:
    """What stands for a missing label and for a negative one, besides NA and 0. What -1 means is declared here, or refused."""

    missing: Sequence[str] = ()
    negative: Sequence[str] = ()

    def __post_init__(self) -> None:
        both = sorted(set(self.missing) & set(self.negative))
        if both:
            raise LabelError(f"{both[0]!r} is declared as missing and as negative; it can mean one of the two")

    @property
    def unknown(self) -> set[str]:
        """Every word for NA."""
        return {*NA, *map(str, self.missing)}

    def binary(self) -> dict[str, float]:
        """Word -> value of a binary label; NaN is NA."""
        return {"0": 0.0, "1": 1.0} | dict.fromkeys(map(str, self.negative), 0.0) | dict.fromkeys(self.unknown, np.nan)


Cells = Sequence[str]
Row = tuple[int, str, Cells]  # line number, path, cells


class Problems:
    """Wrong rows, gathered, so that one run names them all."""

    def __init__(self, file: str | Path) -> None:
        self.file, self.found = file, list[str]()

    def add(self, line: int, problem: str) -> None:
        """Note a problem of a line."""
        self.found.append(f"{self.file}:{line}: {problem}")

    def stop(self, known: Iterable[str] = ()) -> None:
        """LabelError if there are any, with what is known besides."""
        if self.found:
            more = len(self.found) - SHOWN
            raise LabelError("\n".join([*self.found[:SHOWN], *([f"and {more} more like these"] if more > 0 else []), *known]))


def text_lines(path: str | Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of each line that is not blank; a byte-order mark and CRLF are taken off."""
    data = read_file(path, limit=LIMIT).decode("utf-8-sig", "surrogateescape")
    return [(i, line.rstrip("\r")) for i, line in enumerate(data.split("\n"), 1) if line.strip()]


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the names that there are."""
    names = list(known)
    near = get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there {'is' if len(names) == 1 else 'are'} {', '.join(names[:20])}" if names else ""


def numbered(count: int) -> tuple[str, ...]:
    """The names "0", "1", ... of classes that have no better ones."""
    return tuple(str(i) for i in range(count))


def make_table(
    file: str | Path, rows: Sequence[Row], columns: Sequence[Column], words: Words, notes: Sequence[str] = (), planes: tuple[str, ...] = ()
) -> LabelTable:
    """A table of rows with one cell a column, then one a note; LabelError lists every row that does not fit."""
    problems = Problems(file)
    wanted = len(columns) + len(notes)
    for line, _, cells in rows:
        if len(cells) != wanted:
            problems.add(line, f"{len(cells)} columns behind the path, and {wanted} are wanted")
    problems.stop()
    if not rows:
        raise LabelError(f"{file}: no row")
    values, present, raw = {}, {}, {}
    for i, column in enumerate(columns):
        cells = [row[2][i].strip() for row in rows]
        counts = _with_minus_one(column, cells)
        if counts:
            raw[column.name] = counts
        values[column.name], present[column.name] = PARSERS[column.kind](column, cells, words, [row[0] for row in rows], problems)
    undeclared = {} if "-1" in map(str, (*words.missing, *words.negative)) else raw
    problems.stop(f"task {name!r} has {histogram(counts)}" for name, counts in list(undeclared.items())[:SHOWN])
    extra = {name: np.array([row[2][len(columns) + i].strip() for row in rows], dtype=object) for i, name in enumerate(notes)}
    places = tuple(f"{file}:{row[0]}" for row in rows)
    return LabelTable(str(file), tuple(row[1] for row in rows), tuple(columns), values, present, extra, planes, places, raw)


def _with_minus_one(column: Column, cells: Cells) -> dict[str, int]:
    """How often each word of a column comes, if -1 is one of them; else nothing."""
    if not any("-1" in cell for cell in cells):
        return {}
    counts = Counter(word for cell in cells for word in (cell.split() if column.kind == "multilabel" else [cell]))
    return dict(counts) if "-1" in counts else {}


def histogram(counts: Mapping[str, int]) -> str:
    """Words and how often each comes: -1 first, then the frequent ones."""
    order = sorted(counts, key=lambda word: (word != "-1", -counts[word], word))
    listed = ", ".join(f"{word or 'nothing'} x {counts[word]:,}" for word in order[:SHOWN])
    return listed + (f" and {len(order) - SHOWN} other values" if len(order) > SHOWN else "")


def multi_hot_list(file: str | Path, rows: Sequence[Row], words: Words, name: str = "labels", classes: Sequence[str] = ()) -> LabelTable:
    """A table of one multi-label task from rows of K values; K is that of the first row, and a row of another length is refused."""
    problems, width = Problems(file), len(classes) or len(rows[0][2])
    for line, _, cells in rows:
        if len(cells) != width:
            what = f"{len(cells)} values, and {'the classes are' if classes else 'the first row has'} {width}"
            problems.add(line, what)
    problems.stop()
    column = Column(name, "multilabel", tuple(classes) or numbered(width))
    return make_table(file, [(n, path, [" ".join(c or "NA" for c in cells)]) for n, path, cells in rows], [column], words)


# The typed header -----------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"(?P<name>[^:\[\]]+):(?P<kind>\w+)(?:\[(?P<inside>.*)\])?")
_RANGE = re.compile(r"(\d+)\.\.(\d+)(\+?)")
_WORDS = {"class": "multiclass", "multi": "multilabel", "binary": "binary", "age": "age"}


def _typed(path: str | Path, header: str, lines: Sequence[tuple[int, str]], words: Words) -> LabelTable:
    names = [cell.strip() for cell in header.split("\t")]
    parsed = [_heading(path, text) for text in names[1:]]
    columns = [c for c in parsed if isinstance(c, Column)]
    notes = [c for c in parsed if isinstance(c, str)]
    both = [c.name for c in columns] + notes
    twice = sorted({n for n in both if both.count(n) > 1})
    if names[0] != "path" or not columns or twice:
        what = f"{twice[0]!r} twice" if twice else "'#path' first, then a task" if columns else "no task behind '#path'"
        raise LabelError(f"{path}:1: the header has {what}; #path<TAB>hat:binary<TAB>kind:class[cat,dog] is one")
    order = sorted(range(len(parsed)), key=lambda i: isinstance(parsed[i], str))
    problems, rows = Problems(path), []
    for line, text in lines:
        file, *cells = text.split("\t")
        if len(cells) != len(parsed):
            problems.add(line, f"{len(cells) + 1} columns, and the header has {len(parsed) + 1}; cells are separated by tabs")
        else:
            rows.append((line, file.strip(), [cells[i] for i in order]))
    problems.stop()
    return make_table(path, rows, columns, words, notes)


def _heading(path: str | Path, text: str) -> Column | str:
    """The task that `name:kind[...]` declares, or the name of a note."""
    match = _HEADER.fullmatch(text)
    kind = match["kind"] if match else ""
    if not match or kind not in (*_WORDS, *NOTES):
        near = suggest(kind, (*_WORDS, *NOTES)) if match else "; a column is name:kind, kind one of " + ", ".join((*_WORDS, *NOTES))
        raise LabelError(f"{path}:1: the column {text!r} has no kind that we know{near}")
    if kind in NOTES:
        return kind if kind != "group" else match["name"].strip()
    try:
        return Column(match["name"].strip(), _WORDS[kind], _classes(kind, match["inside"]))
    except ValueError as exc:
        raise LabelError(f"{path}:1: the column {text!r}: {exc}") from exc


def _classes(kind: str, inside: str | None) -> tuple[str, ...]:
    if kind == "age":
        span = _RANGE.fullmatch(inside or "")
        if not span or not int(span[1]) < int(span[2]) <= 1000:
            raise ValueError("an age has a range: age[0..100], or age[0..100+] where 100 stands for more, too")
        years = [str(y) for y in range(int(span[1]), int(span[2]) + 1)]
        return (*years[:-1], years[-1] + span[3])
    if inside is None:
        if kind == "binary":
            return ()
        raise ValueError(f"{kind} wants its classes: {kind}[a,b,c], or their number: {kind}[3]")
    names = tuple(n.strip() for n in inside.split(","))
    if len(names) == 1 and names[0].isdigit() and kind != "binary":
        if not 1 <= int(names[0]) <= 1 << 20:
            raise ValueError(f"{names[0]} classes are not possible")
        names = numbered(int(names[0]))
    if len(set(names)) < len(names) or "" in names:
        raise ValueError("a class has no name, or two have the same")
    if kind == "binary" and len(names) != 2:
        raise ValueError("binary has two classes, the negative one first: binary[no,yes]")
    return names


def _cut(line: str) -> tuple[str, Cells]:
    """A row without a header: the path up to the first tab, then values between tabs or spaces."""
    path, tab, rest = line.partition("\t")
    return path.strip(), rest.split("\t") if "\t" in rest.strip() else rest.split() if tab else []


def _note_kind(name: str) -> str:
    return name if name in NOTES else "group"


# Cells ----------------------------------------------------------------------------------------------------------------

Parser = Callable[[Column, Sequence[str], Words, Sequence[int], Problems], tuple[Array, Array]]


def _binary(column: Column, cells: Sequence[str], words: Words, lines: Sequence[int], problems: Problems) -> tuple[Array, Array]:
    table = words.binary() | {name: float(i) for i, name in enumerate(column.classes)}
    values = _looked_up(column, cells, table, lines, problems, "0, 1 or NA" if not column.classes else f"{', '.join(column.classes)} or NA")
    return np.nan_to_num(values).astype(np.float32), ~np.isnan(values)


def _multiclass(column: Column, cells: Sequence[str], words: Words, lines: Sequence[int], problems: Problems) -> tuple[Array, Array]:
    table = dict.fromkeys(words.unknown, np.nan) | {name: float(i) for i, name in enumerate(column.classes)}
    values = _looked_up(column, cells, table, lines, problems, f"one of {len(column.classes)} classes")
    return np.nan_to_num(values).astype(np.int64), ~np.isnan(values)


def _multilabel(column: Column, cells: Sequence[str], words: Words, lines: Sequence[int], problems: Problems) -> tuple[Array, Array]:
    table, width = words.binary(), column.width
    values = np.full((len(cells), width), np.nan)
    for i, cell in enumerate(cells):
        parts = cell.split()
        if cell in words.unknown:
            continue
        if len(parts) != width:
            problems.add(lines[i], f"task {column.name!r} has {width} labels, and the row has {len(parts)} values")
            continue
        try:
            values[i] = [table[p] for p in parts]
        except KeyError as exc:
            problems.add(lines[i], f"task {column.name!r} takes 0, 1 or NA, not {exc.args[0]!r}{_minus_one(exc.args[0])}")
    return np.nan_to_num(values).astype(np.float32), ~np.isnan(values)


def _age(column: Column, cells: Sequence[str], words: Words, lines: Sequence[int], problems: Problems) -> tuple[Array, Array]:
    """Years; above a last class `100+` they become 100."""
    low, high, more = float(column.classes[0]), float(column.classes[-1].rstrip("+")), column.classes[-1].endswith("+")
    values = np.full(len(cells), np.nan)
    unknown = words.unknown
    for i, cell in enumerate(cells):
        if cell in unknown:
            continue
        try:
            years = high if more and cell == column.classes[-1] else float(cell)
        except ValueError:
            years = np.nan
        if not (low <= years <= high or (more and high < years < np.inf)):
            problems.add(lines[i], f"task {column.name!r} takes {column.classes[0]} to {column.classes[-1]} or NA, not {cell!r}{_minus_one(cell)}")
        values[i] = min(years, high)
    return np.nan_to_num(values).astype(np.float32), ~np.isnan(values)


PARSERS: Mapping[str, Parser] = {"age": _age, "binary": _binary, "multiclass": _multiclass, "multilabel": _multilabel}


def _looked_up(column: Column, cells: Sequence[str], table: Mapping[str, float], lines: Sequence[int], problems: Problems, takes: str) -> Array:
    bad = object()
    found = [table.get(cell, bad) for cell in cells]
    for i, value in enumerate(found):
        if value is bad:
            near = _minus_one(cells[i]) or (suggest(cells[i], column.classes) if column.classes else "")
            problems.add(lines[i], f"task {column.name!r} takes {takes}, not {cells[i]!r}{near}")
    return np.array([np.nan if v is bad else v for v in found], dtype=np.float64)


def _minus_one(word: str) -> str:
    """The way out for a -1, whose meaning differs from list to list."""
    return "; it is a negative label in some lists and a missing one in others: declare `missing: [-1]` or `negative: [-1]`" if word == "-1" else ""


def _texts(column: Column, values: Array, present: Array) -> list[str]:
    """The cells of a column."""
    if column.kind == "multilabel":
        return [" ".join(str(int(v)) if p else "NA" for v, p in zip(row, there, strict=True)) for row, there in zip(values, present, strict=True)]
    if column.kind == "age":
        return [f"{v:g}" if p else "NA" for v, p in zip(values, present, strict=True)]
    names = column.classes or ("0", "1")
    return [names[int(v)] if p else "NA" for v, p in zip(values, present, strict=True)]


# Tables together ------------------------------------------------------------------------------------------------------


def rooted(table: LabelTable, root: str | Path) -> LabelTable:
    """The table with its paths below a folder."""
    return replace(table, paths=tuple(str(Path(root) / path) for path in table.paths))


def joined(tables: Mapping[str, LabelTable]) -> LabelTable:
    """One table of several, by name, which may label different tasks: what a list does not label is missing in its rows.

    The note `source` holds the names. LabelError if two lists know a task under one name and not as the same, or images differ in planes.
    """
    columns: dict[str, tuple[Column, str]] = {}
    for name, table in tables.items():
        for column in table.columns:
            known, owner = columns.setdefault(column.name, (column, name))
            if known != column:
                raise LabelError(
                    f"task {column.name!r} is {known.header()} in {owner!r} and {column.header()} in {name!r}; rename one, or make them agree"
                )
    if len({table.planes for table in tables.values()}) > 1:
        raise LabelError(f"the lists {', '.join(tables)} differ in the files that make an image")
    values, present = {}, {}
    for column, _ in columns.values():
        parts = [_part(table, column) for table in tables.values()]
        values[column.name] = np.concatenate([v for v, _ in parts])
        present[column.name] = np.concatenate([p for _, p in parts])
    notes = sorted({note for table in tables.values() for note in table.notes} - {"source"})
    empty = {name: np.full(len(table), "", dtype=object) for name, table in tables.items()}
    return LabelTable(
        file=" + ".join(table.file for table in tables.values()),
        paths=tuple(path for table in tables.values() for path in table.paths),
        columns=tuple(column for column, _ in columns.values()),
        values=values,
        present=present,
        notes={note: np.concatenate([t.notes.get(note, empty[name]) for name, t in tables.items()]) for note in notes}
        | {"source": np.concatenate([np.full(len(table), name, dtype=object) for name, table in tables.items()])},
        planes=next(iter(tables.values())).planes,
        places=tuple(place for table in tables.values() for place in table.places),
        raw={name: dict(sum((Counter(t.raw.get(name, {})) for t in tables.values()), Counter())) for t in tables.values() for name in t.raw},
    )


def _part(table: LabelTable, column: Column) -> tuple[Array, Array]:
    """Values and mask of a task in a table that may not have it."""
    if column.name in table.values:
        return table.values[column.name], table.present[column.name]
    shape = (len(table), column.width) if column.kind == "multilabel" else (len(table),)
    return np.zeros(shape, dtype=np.int64 if column.kind == "multiclass" else np.float32), np.zeros(shape, dtype=bool)


def class_counts(table: LabelTable, column: Column) -> Array:
    """Samples of each class, positives of each label, [negatives, positives] of a binary task; NA counts nowhere."""
    values, present = table.values[column.name], table.present[column.name]
    if column.kind == "multilabel":
        return (values * present).sum(0).astype(np.int64)
    if column.kind == "age":
        return np.bincount((values[present] - float(column.classes[0])).astype(np.int64), minlength=len(column.classes))
    return np.bincount(values[present].astype(np.int64), minlength=2 if column.kind == "binary" else len(column.classes))
