"""Lists of pictures: one line a picture, its name and its label.

Caffe's ImageData takes what stands behind the last space as the label, read as C's atoi reads, and all before it as the name: `a b.png 1`
is the picture `a b.png`. A LabelList is wider: any number of columns behind the name, by tabs or spaces, as multi-label files have them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, DecantError
from ..files import read_file
from .images import read_image
from .paths import Paths
from .source import Picture, Source
from .transform import Transform

Array = np.ndarray[Any, Any]
LIMIT = 1 << 32  # bytes of a list
_NUMBER = re.compile(r"(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|NA)\Z", re.ASCII)


class Lines:
    """The lines of a text file, split at line feeds alone, found when asked for: a list of millions stays as small as its file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._data = read_file(path, limit=LIMIT)
        ends = np.flatnonzero(np.frombuffer(self._data, np.uint8) == 10)
        if self._data and not self._data.endswith(b"\n"):
            ends = np.append(ends, len(self._data))
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) + 1 if index else 0
        return self._data[start : int(self._ends[index])].decode("utf-8", "surrogateescape")

    def place(self, index: int) -> str:
        """File and line, from 1."""
        return f"{self.path}:{index + 1}"


def name_and_label(line: str) -> tuple[str, Any]:
    """A line as Caffe splits it."""
    at = line.rfind(" ")
    name = line[:at] if at >= 0 else line
    found = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", line[at + 1 :])
    label = int(found[1]) if found and len(found[1]) < 20 else 0 if not found else 2**63
    if not -(2**31) <= label < 2**31:
        raise DataError(f"the label {line[at + 1 :][:40]!r} is no 32-bit number")
    return name, label


class Pictures(Source):
    """The pictures of a list, as an ImageData layer reads them: `root_folder` is a plain prefix, `size` is (height, width).

    With `labels`, which reads the same list, each picture has all the labels of its line.
    """

    def __init__(
        self,
        path: str | Path,
        transform: Transform | None = None,
        *,
        root_folder: str = "",
        color: bool = True,
        size: tuple[int, int] | None = None,
        paths: Paths | None = None,
        labels: LabelList | None = None,
    ) -> None:
        super().__init__(transform or Transform())
        self.lines, self.root_folder, self.color, self._resize = Lines(path), root_folder, color, size
        self._paths = paths or Paths()
        if not len(self.lines):
            raise DataError(f"{path}: the list is empty")
        self.labels = labels
        if labels is None:
            _warn_of_columns(self.lines)
        else:
            self.label_shape = (labels.columns,)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Picture:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.lines.path} has {len(self):,} lines; there is no {index}")
        try:
            name, label = name_and_label(self.lines[index]) if self.labels is None else self.labels[index]
            path = self._paths.find(self.root_folder + name, self.lines.path.parent)
            return Picture(read_image(path, color=self.color, size=self._resize), label)
        except DecantError as exc:
            raise type(exc)(f"{self.place(index)}: record {index}: {exc}") from exc

    def has(self, index: int) -> bool:
        """Whether there is a line `index`."""
        return 0 <= index < len(self)

    def place(self, index: int) -> str:
        """The list and the line."""
        return self.lines.place(index)


def _warn_of_columns(lines: Lines) -> None:
    """Warn where the first lines have more than one column of numbers behind the name."""
    for i in range(min(len(lines), 16)):
        numbers = _numbers_at_end(lines[i])
        if numbers > 1:
            warnings.warn(
                f"{lines.place(i)}: {numbers} columns of labels; ImageData takes the last one alone and all before the last space as the name. "
                "samples(net, columns=True) and pycls.datasets.loader(net, columns=True) read all of them",
                stacklevel=4,
            )
            return


class LabelList:
    """A list with any number of labels a line, by tabs or spaces: `path 0 1 1 0`. `labels[5]` -> (name, float32 [K]); `NA` is nan.

    Without `columns`, the first line tells how many there are; every line must have as many.
    """

    def __init__(self, path: str | Path, columns: int | None = None) -> None:
        self.lines = Lines(path)
        if not len(self.lines):
            raise DataError(f"{path}: the list is empty")
        self.columns = columns or self._count(self.lines[0])

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> tuple[str, Array]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.lines.path} has {len(self):,} lines; there is no {index}")
        line = self.lines[index]
        name, *labels = line.rsplit(None, self.columns) or [""]
        if not name or len(labels) != self.columns or not all(map(_NUMBER.match, labels)):
            raise DataError(f"{self.lines.place(index)}: expects a name and {self.columns} numbers (NA for one that is missing), found {line[:80]!r}")
        return name, np.array([np.nan if label == "NA" else float(label) for label in labels], np.float32)

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        return (self[i] for i in range(len(self)))

    def _count(self, line: str) -> int:
        """What stands behind the first tab, or the numbers at the end of the line."""
        if "\t" in line:
            return len(line.split("\t", 1)[1].split())
        return max(1, min(_numbers_at_end(line), len(line.split()) - 1))


def _numbers_at_end(line: str) -> int:
    words = line.split()
    return next((n for n, word in enumerate(reversed(words)) if not _NUMBER.match(word)), len(words))
