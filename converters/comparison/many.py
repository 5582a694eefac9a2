"""Many models at once: each in a process of its own, so that one that breaks, or dies, is a row and never stops the rest.

What is done is kept, a file a model, under a fingerprint of the model's files and of what was asked: a run that was stopped goes on
where it was, and a second one redoes what has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from prototxt import DecantError, FileProblem, FormatError
from prototxt.files import confined_to, read_file, write_file

from .results import plain

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 3600  # seconds that one model may take
GENERIC = ("deploy", "test", "train_val")


@dataclass(frozen=True, slots=True)
class Model:
    """A prototxt with its weights, and recordings of real Caffe that lie beside them."""

    name: str
    prototxt: Path
    weights: Path | None
    recordings: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one model. `against` are the references; worst and blobs are over all of them; `problem` says why there are no numbers."""

    name: str
    ok: bool
    against: tuple[str, ...] = ()
    blobs: int = 0
    failing: int = 0
    worst: float | None = None
    worst_blob: str = ""
    cause: str = ""
    seconds: float = 0.0
    page: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok

    def line(self) -> str:
        """One line for a terminal."""
        verdict = "ok" if self.ok else self.problem or f"DIFFERS at {self.worst_blob}" + (f": {self.cause}" if self.cause else "")
        worst = f"{self.worst:8.1e}" if self.worst is not None else " " * 8
        return f"  {self.name:<36} {self.blobs:5} blobs  {worst}  {self.seconds:6.1f} s  {verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(plain(self))


def found_in(folder: Path) -> list[Model]:
    """The models under a folder: each caffemodel with the prototxt of its stem, else the one of its folder.

    FileProblem where there is none. A folder without a prototxt holds no model.
    """
    if not folder.is_dir():
        raise FileProblem(f"{folder}: is no folder; --all takes one with models, each a .prototxt and a .caffemodel")
    models: list[Model] = []
    for place in sorted({path.parent for path in folder.rglob("*.prototxt")}):
        models += _models_of(place, folder)
    if not models:
        raise FileProblem(f"{folder}: no model in it: a .prototxt and a .caffemodel side by side")
    return _named_apart(models, folder)


def _named_apart(models: Sequence[Model], root: Path) -> list[Model]:
    """Each with a name of its own, as its results go into a folder of that name: where two share one, the weights' stem or file with it."""
    names, longer = [model.name for model in models], [iter(_longer_names(model, root)) for model in models]
    while shared := [i for i, name in enumerate(names) if names.count(name) > 1]:
        for i in shared:
            names[i] = next(longer[i])
    return [replace(model, name=name) for model, name in zip(models, names, strict=True)]


def _longer_names(model: Model, root: Path) -> Iterator[str]:
    file = model.weights or model.prototxt
    place = file.parent.relative_to(root)
    if model.name != str(place / _stem(file)):
        yield str(place / _stem(file))
    name = file.name
    while True:
        yield str(place / name)
        name += "~"


def _stem(weights: Path) -> str:
    return weights.name.removesuffix(".h5").removesuffix(".caffemodel")


def _models_of(place: Path, root: Path) -> Iterator[Model]:
    nets = {path.stem: path for path in sorted(place.glob("*.prototxt")) if not path.stem.endswith("solver")}
    weights = sorted([*place.glob("*.caffemodel"), *place.glob("*.caffemodel.h5")])
    for file in weights:
        stem = _stem(file)
        net = nets.get(stem) or next((nets[name] for name in GENERIC if name in nets), None) or next(iter(nets.values()), None)
        if net is None:
            continue
        relative = place.relative_to(root)
        alone = len(weights) == 1 and relative.parts
        recordings = [place / f"{net.stem}.npz"] if (place / f"{net.stem}.npz").is_file() else sorted(place.glob("golden*.npz")) if alone else []
        yield Model(str(relative) if alone else str(relative / stem), net, file, tuple(recordings))


# Each in its process --------------------------------------------------------------------------------------------------


def compare_all(folder: Path, against: Sequence[str], asked: Any, jobs: int, show: Callable[[Row], object]) -> list[Row]:
    """A row for each model under `folder`: compared with each of `against`, by default its recordings and ONNX Runtime.

    Reports, the overview and what resumes a run lie in `asked.report`, by default `compared`.
    """
    _refuse({"--weights": asked.weights, "--input": asked.input, "--net": asked.net, "--map": asked.names, "--save": asked.save,
             "--mean": asked.mean, "--scale": asked.scale != 1})  # fmt: skip
    target = asked.report or Path("compared")
    passed = ("blobs", "tolerance", "gradients", "caffe_python", "phase", "stages", "level", "shapes", "seed")
    options = {name: getattr(asked, name) for name in passed}
    options["tolerance"] = asdict(asked.tolerance) if asked.tolerance else None
    jobs_of = [(model, {"kind": "compare", "against": list(against), "options": options}) for model in found_in(folder)]
    rows = _run_all(jobs_of, target, jobs, show)
    _overview(rows, target, f"Comparisons of {folder}")
    return rows


def convert_all(folder: Path, options: Any, target: Path, jobs: int, show: Callable[[Row], object], *, weights: Path | None = None) -> list[Row]:
    """A row for each model under `folder`: converted into a folder of its own below `target`, with its proof card.

    Weights and recordings lie beside each model: `weights` is refused, as `options.golden` is.
    """
    _refuse({"--weights": weights, "--golden": options.golden})
    passed = {field.name: getattr(options, field.name) for field in fields(options) if field.name != "golden"}
    jobs_of = [(model, {"kind": "convert", "options": passed}) for model in found_in(folder)]
    rows = _run_all(jobs_of, target, jobs, show)
    _overview(rows, target, f"Conversions of {folder}")
    return rows


def verdict(rows: Sequence[Row]) -> str:
    """The last line of a run."""
    bad = [row.name for row in rows if not row]
    return f"{len(rows)} models: all ok" if not bad else f"{len(rows)} models: {len(bad)} not ok: {', '.join(bad)}"


def _refuse(given: Mapping[str, Any]) -> None:
    """What says something of one model, and cannot be meant for all."""
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise DecantError(f"--all: {', '.join(wrong)} cannot be the same for every model of a folder; leave it out, or take that model alone")


def _run_all(work: Sequence[tuple[Model, dict[str, Any]]], target: Path, jobs: int, show: Callable[[Row], object]) -> list[Row]:
    rows: dict[str, Row] = {}
    root = str(confined_to() or "")  # of this process; the others are confined to the same
    pool = ThreadPoolExecutor(max(1, jobs))
    try:
        threads = max(1, (os.cpu_count() or 1) // max(1, jobs))
        running = [pool.submit(_one, model, job | {"root": root}, target, threads) for model, job in work]
        for done in as_completed(running):
            row = done.result()
            rows[row.name] = row
            show(row)
    finally:
        pool.shutdown(cancel_futures=True)  # who stops a run stops what has not begun too
    return [rows[model.name] for model, _ in work]


def _one(model: Model, job: dict[str, Any], target: Path, threads: int) -> Row:
    """The row of one model, from an earlier run or from a process of its own."""
    place = target / model.name
    kept = place / "row.json"
    mark = _fingerprint(model, job)
    earlier = _kept(kept, mark)
    if earlier is not None:
        return earlier
    start = time.perf_counter()
    place.mkdir(parents=True, exist_ok=True)
    paths = {"prototxt": str(model.prototxt), "weights": str(model.weights or ""), "recordings": [str(p) for p in model.recordings]}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    said = json.dumps(job | paths | {"name": model.name, "folder": str(place)})
    try:
        command = [sys.executable, "-m", "converters.comparison.job"]
        done = subprocess.run(command, input=said, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        row = _row_of(model, done)
    except subprocess.TimeoutExpired:
        row = Row(model.name, False, problem=f"stopped after {TIMEOUT} s")
    row = replace(row, seconds=round(time.perf_counter() - start, 2))
    write_file(kept, json.dumps({"mark": mark, "row": row.to_dict()}, indent=1) + "\n")
    return row


def _row_of(model: Model, done: subprocess.CompletedProcess[str]) -> Row:
    if done.returncode == 0:
        return row_from(json.loads(done.stdout.splitlines()[-1]))
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    how = f"its process was killed by signal {-done.returncode}" if done.returncode < 0 else said[-1][:300] if said else f"exit {done.returncode}"
    return Row(model.name, False, problem=how)


def row_from(values: dict[str, Any]) -> Row:
    """The row that `to_dict` wrote; FormatError where it is none."""
    try:
        worst = values["worst"]
        return Row(
            **values | {"worst": None if worst is None else float(worst), "against": tuple(values["against"]), "notes": tuple(values["notes"])}
        )
    except (TypeError, KeyError, ValueError) as exc:
        raise FormatError(f"no row of a run over many models: {exc}") from exc


def _kept(path: Path, mark: str) -> Row | None:
    """The row of an earlier run of the same; one with a problem is tried again."""
    if not path.is_file():
        return None
    try:
        held = json.loads(read_file(path, limit=1 << 24))
        row = row_from(held["row"])
    except (ValueError, KeyError, TypeError, FormatError):
        return None
    return row if held["mark"] == mark and not row.problem else None


def _fingerprint(model: Model, job: dict[str, Any]) -> str:
    """Of the model's files, of what was asked, and of this package's own version."""
    from ..proof import versions

    told = hashlib.sha256(json.dumps([job, versions()], sort_keys=True, default=str).encode())
    for path in (model.prototxt, model.weights, *model.recordings):
        if path is not None:
            told.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return told.hexdigest()


def _overview(rows: Iterable[Row], target: Path, title: str) -> None:
    """rows.json, and a page of one row a model."""
    from .reports import write_rows

    rows = list(rows)
    write_file(target / "rows.json", json.dumps([row.to_dict() for row in rows], indent=1) + "\n")
    write_rows(rows, target / "index.html", title)
