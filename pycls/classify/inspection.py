"""`decant classify inspect`: what is in the lists before anything trains on them, and what is wrong with it.

A finding fails the command: labels that cannot be learned or tested, images that are missing or broken, the same image twice with other
labels, and leaks: an image or a group (a camera, a person) in two splits. A note does not.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from prototxt import DataError, FileProblem
from prototxt.data.images import LIMIT, decode
from prototxt.files import read_file

from ..labels import Column, LabelTable, class_counts, histogram
from .images import Array

SHOWN = 10  # places that a finding lists
PAIRS = 100_000_000  # of images that are compared by their perceptual hashes
FEW = 2  # samples below which a class can hardly be learned and tested


@dataclass
class Inspection:
    """Facts by split as plain values, findings that fail, notes that do not."""

    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ok": bool(self), "splits": self.splits, "findings": self.findings, "notes": self.notes}


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a row's image: a hash of its bytes, a perceptual one of 256 bits, its size as words; or why it is broken."""

    content: str = ""
    look: Array | None = None
    size: str = ""
    broken: str = ""


def inspect(
    tables: Mapping[str, LabelTable], *, images: bool = True, near: int = 6, workers: int = 2, tick: Callable[[int], None] | None = None
) -> Inspection:
    """Look at the tables of the splits, and with `images` at every file; `near` are the differing bits up to which two images look alike."""
    made = Inspection()
    pictures: dict[str, list[Picture]] = {}
    for name, table in tables.items():
        made.splits[name] = {"file": table.file, "rows": len(table), "tasks": {c.name: _task(made, name, table, c) for c in table.columns}}
        made.splits[name]["groups"] = {note: len(set(values)) for note, values in table.notes.items()}
        _repeated_rows(made, name, table)
        if images:
            pictures[name] = _looked_at(table, workers, tick)
            _broken(made, name, table, pictures[name])
            _twins(made, name, table, pictures[name])
    for a, b in combinations(tables, 2):
        _shared_rows(made, (a, b), tables)
        _shared_groups(made, (a, b), tables)
        if images:
            _shared_images(made, (a, b), tables, pictures, near)
    return made


# Labels ---------------------------------------------------------------------------------------------------------------


def _task(made: Inspection, split: str, table: LabelTable, column: Column) -> dict[str, Any]:
    present, counts = table.present[column.name], class_counts(table, column)
    names = column.classes if column.classes else ("0", "1")
    facts: dict[str, Any] = {
        "kind": column.kind,
        "labels": int(present.sum()),
        "missing_share": float(1 - present.mean()),
        "counts": {name: int(n) for name, n in zip(names, counts, strict=True)},
    }
    if column.name in table.raw:
        facts["raw"] = dict(table.raw[column.name])
    if not present.any():
        made.findings.append(f"{split}: every row is NA for task {column.name!r}")
        return facts
    there = counts[counts > 0]
    facts["imbalance"] = float(there.max() / there.min()) if len(there) else None
    if column.kind == "age":
        years = table.values[column.name][present]
        facts |= {"mean": float(years.mean()), "range": [float(years.min()), float(years.max())]}
        return facts
    rare = [f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n < FEW]
    if rare:
        made.notes.append(f"{split}: task {column.name!r} has classes with fewer than {FEW} samples: {', '.join(rare[:SHOWN])}{_more(rare)}")
    if column.kind == "multilabel":
        facts |= _together(table, column)
    return facts


def _together(table: LabelTable, column: Column) -> dict[str, Any]:
    """Which labels come together: counts by pair, and how many labels a row has."""
    hot = (table.values[column.name] * table.present[column.name]).astype(np.float64)
    both = (hot.T @ hot).astype(np.int64)
    return {"together": both.tolist(), "labels_per_row": float(hot.sum(1).mean()), "rows_without_label": int((hot.sum(1) == 0).sum())}


# Rows and groups ------------------------------------------------------------------------------------------------------


def _repeated_rows(made: Inspection, split: str, table: LabelTable) -> None:
    seen: dict[str, int] = {}
    twice = [(seen[path], i) for i, path in enumerate(table.paths) if seen.setdefault(path, i) != i]
    if twice:
        first, second = twice[0]
        made.findings.append(
            f"{split}: {len(twice)} rows name an image again: {table.places[second]} has {table.paths[first]} of {table.places[first]}"
        )


def _shared_rows(made: Inspection, pair: tuple[str, str], tables: Mapping[str, LabelTable]) -> None:
    a, b = (tables[name] for name in pair)
    places = dict(zip(a.paths, a.places, strict=True))
    both = [(places[path], place) for path, place in zip(b.paths, b.places, strict=True) if path in places]
    if both:
        made.findings.append(f"leak: {len(both)} images are named in {pair[0]} and in {pair[1]}: {both[0][0]} and {both[0][1]}")


def _shared_groups(made: Inspection, pair: tuple[str, str], tables: Mapping[str, LabelTable]) -> None:
    a, b = (tables[name] for name in pair)
    for note in sorted((set(a.notes) & set(b.notes)) - {"source", "split"}):
        both = sorted((set(a.notes[note]) & set(b.notes[note])) - {""})
        if both:
            made.findings.append(f"leak: {len(both)} of {note!r} are in {pair[0]} and in {pair[1]}: {', '.join(both[:SHOWN])}{_more(both)}")


# Images ---------------------------------------------------------------------------------------------------------------


def _looked_at(table: LabelTable, workers: int, tick: Callable[[int], None] | None) -> list[Picture]:
    made: list[Picture] = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for picture in pool.map(lambda row: picture_of(table.files(row)), range(len(table))):
            made.append(picture)
            if tick:
                tick(1)
    return made


def picture_of(files: Sequence[str]) -> Picture:
    """What is to be known of an image: read once, decoded once."""
    digest, looks, size = hashlib.sha256(), list[Array](), ""
    for file in files:
        try:
            data = read_file(file, limit=LIMIT)
            image = decode(data, color=None)
        except (DataError, FileProblem) as exc:
            return Picture(broken=str(exc) if file in str(exc) else f"{file}: {exc}")
        digest.update(data)
        looks.append(look(image))
        size = f"{image.shape[2]} x {image.shape[1]} x {image.shape[0] * len(files)}"
    return Picture(digest.hexdigest(), looks[0], size)


def look(image: Array) -> Array:
    """A perceptual hash, bool [256]: the 16 x 16 lowest cosines of the grey image of 64 x 64, above their median or not."""
    import cv2

    grey = np.ascontiguousarray(image[:3].mean(0, dtype=np.float32))
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:16, :16].reshape(-1)
    made: Array = low > np.median(low[1:])
    made[0] = False  # the mean brightness says nothing of the content
    return made


def _broken(made: Inspection, split: str, table: LabelTable, pictures: Sequence[Picture]) -> None:
    broken = [f"{table.places[i]}: {p.broken}" for i, p in enumerate(pictures) if p.broken]
    made.splits[split]["broken"] = broken
    made.splits[split]["sizes"] = dict(Counter(p.size for p in pictures if p.size).most_common(20))
    if broken:
        made.findings.append(f"{split}: {len(broken)} images are missing or do not decode:\n    " + "\n    ".join(broken[:SHOWN]) + _more(broken))


def _twins(made: Inspection, split: str, table: LabelTable, pictures: Sequence[Picture]) -> None:
    """The same image more than once in a split: a finding where its labels differ."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, picture in enumerate(pictures):
        if picture.content:
            rows[picture.content].append(i)
    copies = [same for same in rows.values() if len(same) > 1]
    made.splits[split]["duplicates"] = sum(len(same) - 1 for same in copies)
    clash = [(i, j) for same in copies for i, j in combinations(same[:SHOWN], 2) if _disagree(table, i, j)]
    if clash:
        i, j = clash[0]
        made.findings.append(f"{split}: {len(clash)} pairs of equal images have other labels: {table.places[i]} and {table.places[j]}")
    elif copies:
        first, copy = (table.places[i] for i in copies[0][:2])
        made.notes.append(f"{split}: {made.splits[split]['duplicates']} images are copies of another: that of {copy} is that of {first}")


def _disagree(table: LabelTable, i: int, j: int) -> bool:
    """Whether two rows have different labels where both have one."""
    for name, values in table.values.items():
        there = table.present[name][i] & table.present[name][j]
        if np.any((values[i] != values[j]) & there):
            return True
    return False


def _shared_images(
    made: Inspection, pair: tuple[str, str], tables: Mapping[str, LabelTable], pictures: Mapping[str, list[Picture]], near: int
) -> None:
    (a, b), (ours, theirs) = (tables[name] for name in pair), (pictures[name] for name in pair)
    known = {p.content: a.places[i] for i, p in enumerate(ours) if p.content}
    equal = [(known[p.content], b.places[i]) for i, p in enumerate(theirs) if p.content in known]
    between = f"{pair[0]} and {pair[1]}"
    if equal:
        made.findings.append(f"leak: {len(equal)} images of {pair[1]} are in {pair[0]}, byte for byte: {equal[0][1]} is {equal[0][0]}")
    i_rows, j_rows = ([i for i, p in enumerate(listed) if p.look is not None] for listed in (ours, theirs))
    if len(i_rows) * len(j_rows) > PAIRS:
        made.notes.append(
            f"{between}: too many images to compare how each pair looks ({len(i_rows):,} x {len(j_rows):,}); equal bytes were looked for"
        )
        return
    pairs = _alike(np.array([ours[i].look for i in i_rows]), np.array([theirs[j].look for j in j_rows]), near)
    others = [(d, i_rows[i], j_rows[j]) for i, j, d in pairs if ours[i_rows[i]].content != theirs[j_rows[j]].content]
    made.splits[pair[1]].setdefault("alike", {})[pair[0]] = len(others)
    if others:
        listed = "\n    ".join(f"{a.places[i]} and {b.places[j]} ({d} bits)" for d, i, j in sorted(others)[:SHOWN])
        made.notes.append(f"{len(others)} pairs of {between} look alike, up to {near} of 256 bits; is it one scene?\n    {listed}{_more(others)}")


def _alike(a: Array, b: Array, near: int) -> list[tuple[int, int, int]]:
    """Pairs of rows that differ in at most `near` bits, and in how many."""
    if not len(a) or not len(b):
        return []
    signs, other = np.where(a, 1, -1).astype(np.float32), np.where(b, 1, -1).astype(np.float32)
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(signs), 1024):
        distance = (a.shape[1] - signs[start : start + 1024] @ other.T) / 2
        found += [(start + int(i), int(j), int(distance[i, j])) for i, j in zip(*np.nonzero(distance <= near), strict=True)]
    return found


def _more(items: Sequence[Any]) -> str:
    return f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""


# Text -----------------------------------------------------------------------------------------------------------------


def text(made: Inspection) -> str:
    """The inspection for a terminal."""
    lines: list[str] = []
    for name, facts in made.splits.items():
        sizes = facts.get("sizes", {})
        listed = ", ".join(f"{size}: {n}" for size, n in list(sizes.items())[:3]) + (f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else "")
        groups = "".join(f", {n} of {note!r}" for note, n in facts["groups"].items())
        lines += ["", f"{name}: {facts['file']}, {facts['rows']:,} rows{groups}" + (f"; images {listed}" if listed else "")]
        for task, of in facts["tasks"].items():
            lines += _task_lines(task, of)
    for title, items in (("notes", made.notes), ("findings", made.findings)):
        if items:
            lines += ["", f"{title}:", *(f"  {item}" for item in items)]
    verdict = "nothing is wrong with these lists" if made else f"{len(made.findings)} finding{'s' if len(made.findings) > 1 else ''}"
    return "\n".join([*lines[1:], "", verdict]) + "\n"


def _task_lines(task: str, facts: Mapping[str, Any]) -> list[str]:
    imbalance = facts.get("imbalance")
    raw = [f"    the file has {histogram(facts['raw'])}"] if "raw" in facts else []
    head = f"  {task:<16} {facts['kind']:<10} {facts['labels']:>8,} labels, {facts['missing_share']:6.1%} NA"
    if facts["kind"] == "age":
        span = facts.get("range")
        return [head + (f", from {span[0]:g} to {span[1]:g}, mean {facts['mean']:.1f}" if span else ""), *raw]
    head += f", imbalance {imbalance:.3g} : 1" if imbalance else ""
    counts = facts["counts"]
    largest = max(counts.values(), default=0) or 1
    rows = [f"    {name[:24]:<24} {n:>8,} {'#' * round(30 * n / largest)}" for name, n in list(counts.items())[:40]]
    if len(counts) > 40:
        rows.append(f"    and {len(counts) - 40} more classes")
    if "together" in facts:
        rows.append(f"    {facts['labels_per_row']:.2f} labels a row, {facts['rows_without_label']} rows without one; together: {_pairs(facts)}")
    return [head, *raw, *rows]


def _pairs(facts: Mapping[str, Any]) -> str:
    """The label pairs that come together most."""
    names, both = list(facts["counts"]), np.array(facts["together"])
    pairs = sorted(((int(both[i, j]), names[i], names[j]) for i, j in combinations(range(len(names)), 2)), reverse=True)
    return ", ".join(f"{a} and {b} {n}" for n, a, b in pairs[:5] if n) or "none"
