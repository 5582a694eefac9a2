"""Caffe's tools for data: a list of pictures becomes an LMDB, a database becomes a mean file.

Keys and records are those of convert_imageset: `00000005_name`, shape, bytes (B, G, R planes), label. What is half written is never seen:
the database is made beside its place, and moved there when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, DecantError, FileProblem
from ..files import read_file
from .databases import Records, open_database
from .datum import datum
from .images import decode, resize
from .lists import Lines, name_and_label
from .mean import write_mean
from .order import shuffled
from .paths import Paths

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]  # how many are done, of how many
_COMMIT, _COMMIT_BYTES = 1000, 1 << 26  # records a transaction, and their bytes, at most
_KEY = 511  # bytes of a key at most


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a list: how many records were written, and the errors of those that were not."""

    written: int
    skipped: tuple[str, ...]


def convert_imageset(
    listing: str | Path,
    database: str | Path,
    *,
    root_folder: str = "",
    gray: bool = False,
    size: tuple[int, int] | None = None,
    shuffle: bool = False,
    seed: int = 0,
    check_size: bool = False,
    encoded: str = "",
    skip: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write the pictures of a list (`path label` a line) to a new LMDB, as Caffe's convert_imageset does.

    `size` is (height, width). `encoded` keeps pictures compressed: "png", "jpg", or "same" as the file. A picture that cannot be read is an error, or
    passed over with `skip`. `check_size` refuses pictures of another size than the first.
    """
    lines, paths = Lines(listing), Paths(Path(listing).parent)
    if not len(lines):
        raise DataError(f"{listing}: the list is empty")
    order: Sequence[int] = shuffled(len(lines), [seed]).tolist() if shuffle else range(len(lines))
    skipped: list[str] = []
    first: list[tuple[int, ...]] = []
    with _NewLmdb(Path(database)) as target:
        for number, i in enumerate(order):
            try:
                name, label = name_and_label(lines[i])
                record, shape = _record(paths.find(root_folder + name), label, gray=gray, size=size, encoded=encoded)
                if check_size and shape != (first or [shape])[0]:
                    raise DataError(f"{shape[0]} x {shape[1]} x {shape[2]} (channels x height x width), the first is {first[0]}")
                first = first or [shape]
                target.put(f"{number:08d}_{name}", record)
            except DecantError as exc:
                if not skip:
                    raise type(exc)(f"{lines.place(i)}: record {i}: {exc}") from exc
                skipped.append(f"{lines.place(i)}: {exc}")
            if progress is not None:
                progress(number + 1, len(lines))
    return Converted(len(lines) - len(skipped), tuple(skipped))


def _record(path: Path, label: int, *, gray: bool, size: tuple[int, int] | None, encoded: str) -> tuple[bytes, tuple[int, ...]]:
    """A picture file as a record, and its channels, height and width."""
    data = read_file(path, limit=1 << 30)
    image = decode(data, color=not gray)
    if encoded:
        suffix = path.suffix.lower().lstrip(".").replace("jpeg", "jpg")
        encoded = suffix if encoded == "same" else encoded.lower()
        if size is None and suffix == encoded:
            return datum((), data, label, encoded=True), image.shape  # as it is, in as many channels as the file has
        return datum((), _compressed(resize(image, *size) if size else image, encoded), label, encoded=True), image.shape
    image = resize(image, *size) if size else image
    return datum(image.shape, image.tobytes(), label), image.shape


def _compressed(image: Array, kind: str) -> bytes:
    import cv2

    try:
        done, data = cv2.imencode(f".{kind.lstrip('.')}", np.ascontiguousarray(image.transpose(1, 2, 0)))
    except cv2.error as exc:
        raise DataError(f"{kind!r} is no kind of picture that OpenCV writes; png and jpg are") from exc
    if not done:
        raise DataError(f"OpenCV could not write a {kind}")
    return bytes(data.tobytes())


class _NewLmdb:
    """An LMDB in the making, beside the place where it will stand."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise FileProblem(f"{path}: exists already; remove it, or name another folder")
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._size, self._bytes = 1 << 30, 0
        self._waiting: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> _NewLmdb:
        import lmdb

        self._lmdb = lmdb
        try:
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir(parents=True)
            self._env = lmdb.open(str(self.temporary), map_size=self._size, subdir=True, lock=False)
        except (OSError, lmdb.Error) as exc:
            raise FileProblem(f"{self.path}: cannot be written: {exc}") from exc
        return self

    def put(self, name: str, record: bytes) -> None:
        """Add a record."""
        key = name.encode("utf-8", "surrogateescape")
        if len(key) > _KEY:
            raise DataError(f"{name[:60]}...: a name of {len(key) - 9} bytes; an LMDB's key holds {_KEY - 9}")
        self._waiting.append((key, record))
        self._bytes += len(record)
        if len(self._waiting) >= _COMMIT or self._bytes > _COMMIT_BYTES:
            self._commit()

    def _commit(self) -> None:
        while self._waiting:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, record in self._waiting:
                        transaction.put(key, record)
                self._waiting.clear()
                self._bytes = 0
            except self._lmdb.MapFullError:
                self._size *= 2
                self._env.set_mapsize(self._size)
            except (OSError, self._lmdb.Error) as exc:
                raise FileProblem(f"{self.path}: cannot be written: {exc}") from exc

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._commit()
                self._env.sync(True)
            self._env.close()
            if kind is None:
                (self.temporary / "lock.mdb").unlink(missing_ok=True)
                os.replace(self.temporary, self.path)
        except (OSError, self._lmdb.Error) as exc:
            raise FileProblem(f"{self.path}: cannot be written: {exc}") from exc
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)


def compute_mean(database: str | Path, out: str | Path | None = None, *, progress: Progress | None = None) -> Array:
    """The mean over the records of a database, float32 [C, H, W], also written to `out` as a .binaryproto, as compute_image_mean does."""
    records = Records(open_database(database))
    total: Array | None = None
    count, most = 0, len(records) if progress is not None else 0
    while records.has(count):
        pixels = records[count].pixels
        if total is None:
            total = np.zeros(pixels.shape, np.float64)
        if pixels.shape != total.shape:
            have, want = (" x ".join(map(str, shape)) for shape in (pixels.shape, total.shape))
            raise DataError(f"{records.place(count)}: is {have} (channels x height x width), the first one {want}; a mean needs pictures of one size")
        total += pixels
        count += 1
        if progress is not None:
            progress(count, most)
    if total is None:
        raise DataError(f"{database}: the database is empty")
    mean = (total / count).astype(np.float32)
    if out is not None:
        write_mean(out, mean)
    return mean
