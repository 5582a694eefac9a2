"""The log of a run: one JSON object a line, {"kind": ..., "iteration": ..., ...}, appended as it happens; and TensorBoard beside it.

Nothing is ever removed: a run that goes on from a snapshot appends a `start`, and `read_log` passes over what it made void. A line that a
killed process left half written is passed over too. Kinds of `train`: start, train, test, snapshot, stop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prototxt import DecantError, FileProblem, FormatError
from prototxt.files import read_file

LIMIT = 1 << 31  # bytes of a log


class RunLog:
    """Appends records to `path`; with `tensorboard`, a folder, their numbers go there too. `None` writes nothing."""

    def __init__(self, path: str | Path | None, tensorboard: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        try:
            self._file = None if self.path is None else open(self.path, "ab+")  # noqa: SIM115
            if self._file is not None and self._torn():
                self._file.write(b"\n")
        except OSError as exc:
            raise FileProblem(f"{path}: the log cannot be written: {exc.strerror or exc}") from exc
        self._board = None if tensorboard is None else _board(Path(tensorboard))

    def _torn(self) -> bool:
        """Whether the last line lacks its end."""
        assert self._file is not None
        if not self._file.tell():
            return False
        self._file.seek(-1, 2)
        return self._file.read(1) != b"\n"

    def write(self, kind: str, iteration: int, **facts: Any) -> None:
        """Append one record. Numbers that are no JSON (nan, inf) become null."""
        record = {"kind": kind, "iteration": iteration, **{name: _plain(value) for name, value in facts.items()}}
        if self._file is not None:
            try:
                self._file.write((json.dumps(record) + "\n").encode())
                self._file.flush()
            except OSError as exc:
                raise FileProblem(f"{self.path}: the log cannot be written: {exc.strerror or exc}") from exc
        if self._board is not None:
            for name, value in _scalars(facts):
                self._board.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Write out what is left."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records that hold: those before a restart's iteration, and all behind it. FormatError if a file is no log."""
    records: list[dict[str, Any]] = []
    lines = read_file(path, limit=LIMIT).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            kind, iteration = record["kind"], int(record["iteration"])
        except (ValueError, KeyError, TypeError) as exc:
            if number == 1:
                raise FormatError(f"{path}:1: is no log of a run: each of its lines is a JSON object with a kind and an iteration") from exc
            continue  # a line that a killed process left half written
        if kind == "start":
            records = [r for r in records if r["iteration"] < iteration]
        records.append(record)
    if not records:
        raise FormatError(f"{path}: the log is empty")
    return records


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _scalars(facts: dict[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{inner}", v) for inner, v in _scalars(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def _board(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    try:
        return SummaryWriter(str(folder))
    except OSError as exc:
        raise DecantError(f"{folder}: TensorBoard's folder cannot be written: {exc.strerror or exc}") from exc
