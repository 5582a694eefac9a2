"""WindowData: windows of pictures, warped to squares, for R-CNN. Conformance: data/window_*.

A window file lists pictures: `# index`, path, channels, height, width, number of windows, then one line a window: class, overlap with an
object, x1 y1 x2 y2. From fg_threshold on a window is foreground; below bg_threshold it is background, of class 0. A batch is background
windows first, then int(batch_size x fg_fraction) of the foreground, each drawn anew. Padding stays 0, the mean is not taken from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import copysign, floor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ..errors import DataError
from ..files import read_file
from .images import read_image, resize
from .paths import Paths
from .transform import Transform

Array = np.ndarray[Any, Any]
LIMIT = 1 << 32


class Window(NamedTuple):
    """A window: the picture's index, the class, and its corners, both within."""

    image: int
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True)
class WindowFile:
    """Pictures by index as (name, channels), and the windows of both kinds, as rows of six numbers."""

    path: Path
    images: tuple[tuple[str, int], ...]
    foreground: Array
    background: Array


def read_windows(path: str | Path, foreground_from: float, background_below: float) -> WindowFile:
    """Read a window file. DataError where it is not in order, or lacks windows of a kind."""
    path = Path(path)
    words = _Words(path)
    images: list[tuple[str, int]] = []
    kinds: tuple[list[Window], list[Window]] = [], []
    while (index := words.next_image()) is not None:
        name, channels = words.word("a path"), words.integer("channels")
        words.integer("a height"), words.integer("a width")
        images.append((name, channels))
        for _ in range(words.integer("a number of windows")):
            label, overlap = words.integer("a class"), words.number("an overlap")
            corners = [words.integer("a corner") for _ in range(4)]
            if overlap >= np.float32(foreground_from):
                if label <= 0:
                    words.refuse(f"a foreground window of class {label}; classes of objects begin at 1")
                kinds[0].append(Window(index, label, *corners))
            elif overlap < np.float32(background_below):
                kinds[1].append(Window(index, 0, *corners))
    if not images:
        raise DataError(f"{path}: the window file is empty")
    for kind, found in zip(("foreground", "background"), kinds, strict=True):
        if not found:
            raise DataError(
                f"{path}: no {kind} window; a batch needs both kinds (fg_threshold {foreground_from:g}, bg_threshold {background_below:g})"
            )
        stray = next((w.image for w in found if not 0 <= w.image < len(images)), None)
        if stray is not None:
            raise DataError(f"{path}: picture # {stray} of {len(images)}; they are numbered from 0, in order")
    return WindowFile(path, tuple(images), np.array(kinds[0], np.int64), np.array(kinds[1], np.int64))


class _Words:
    """The words of the file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._words: Iterator[bytes] = iter(read_file(path, limit=LIMIT).split())

    def next_image(self) -> int | None:
        """The index behind `#`, or None at the end, where Caffe stops reading too."""
        mark, index = next(self._words, None), next(self._words, None)
        if mark is None or index is None:
            return None
        self.count += 2
        if mark != b"#":
            self.refuse(f"expects `#` and the index of a picture, found {mark[:40]!r}")
        return self._int(index, "an index")

    def word(self, what: str) -> str:
        found = next(self._words, None)
        self.count += 1
        if found is None:
            raise DataError(f"{self.path}: ends where {what} should stand")
        return found.decode("utf-8", "surrogateescape")

    def integer(self, what: str) -> int:
        return self._int(self.word(what).encode("utf-8", "surrogateescape"), what)

    def number(self, what: str) -> np.float32:
        text = self.word(what)
        try:
            return np.float32(text)
        except (ValueError, OverflowError):
            self.refuse(f"expects {what}, found {text[:40]!r}")

    def _int(self, text: bytes, what: str) -> int:
        if not text[text[:1] in (b"+", b"-") :].isdigit() or len(text) > 11 or not -(2**31) <= int(text) < 2**31:
            self.refuse(f"expects {what}, found {text[:40]!r}")
        return int(text)

    def refuse(self, problem: str) -> NoReturn:
        raise DataError(f"{self.path}: word {self.count}: {problem}")


class Windows:
    """Warps windows as Caffe does; `transform` gives crop_size, mirror and mean, `scale` is window_data_param's own."""

    def __init__(self, file: WindowFile, transform: Transform, *, root_folder: str, scale: float, pad: int, square: bool, paths: Paths) -> None:
        self.file, self.transform, self.paths = file, transform, paths
        self.root_folder, self.scale, self.pad, self.square = root_folder, np.float32(scale), pad, square
        crop = transform.crop
        if crop < 1:
            raise DataError("transform_param.crop_size must say to what size windows are warped")
        if (pad or square) and crop <= 2 * pad:
            raise DataError(f"context_pad {pad} leaves nothing of a window of {crop}")
        mean = transform.mean
        if mean is not None and (mean.shape[0] != 3 or mean.shape[2] < crop or (mean.shape[2] - crop) // 2 + crop > mean.shape[1]):
            raise DataError(f"the mean file is {'x'.join(map(str, mean.shape))}; windows of {crop} need three channels of at least that size")
        if transform.values is not None and transform.values.size not in (1, 3):
            raise DataError(f"{transform.values.size} mean_value for 3 channels: write one for all, or one for each")
        if any(channels != 3 for _, channels in file.images):
            raise DataError(f"{file.path}: windows are read in colour; the file must say 3 channels for each picture")

    def warp(self, window: Window, out: Array, *, mirror: bool) -> None:
        """Write a window to `out` [3, crop, crop], which is zeros."""
        name = self.file.images[window.image][0]
        image = read_image(self.paths.find(self.root_folder + name, self.file.path.parent))
        (x1, y1, x2, y2), (pad_x, pad_y), (width, height) = self._region(window, image.shape[2], image.shape[1], mirror)
        if not (0 <= x1 <= x2 < image.shape[2] and 0 <= y1 <= y2 < image.shape[1]) or min(width, height) < 1:
            raise DataError(
                f"{name}: the window {window[2:]} does not lie within the picture of {image.shape[2]} x {image.shape[1]} (width x height)"
            )
        pixels = resize(image[:, y1 : y2 + 1, x1 : x2 + 1], height, width).astype(np.float32)
        if mirror:
            pixels = pixels[..., ::-1]
        place = np.s_[:, pad_y : pad_y + height, pad_x : pad_x + width]
        if self.transform.mean is not None:
            offset = (self.transform.mean.shape[2] - self.transform.crop) // 2
            pixels = pixels - self.transform.mean[:, offset:, offset:][place]
        elif self.transform.values is not None:
            pixels = pixels - self.transform.values[:, None, None]
        out[place] = pixels * self.scale

    def _region(self, window: Window, columns: int, rows: int, mirror: bool) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]:
        """What to cut out of the picture, where it goes in the output, and its size there: all in float32, as Caffe reckons."""
        crop, f = self.transform.crop, np.float32
        x1, y1, x2, y2 = window[2:]
        if not (self.pad or self.square):
            return (x1, y1, x2, y2), (0, 0), (crop, crop)
        context = f(crop) / f(crop - 2 * self.pad)
        half_w, half_h = f(f(x2 - x1 + 1) / f(2)), f(f(y2 - y1 + 1) / f(2))
        centre_x, centre_y = f(x1) + half_w, f(y1) + half_h
        if self.square:
            half_w = half_h = max(half_w, half_h)
        x1, x2 = _round(centre_x - half_w * context), _round(centre_x + half_w * context)
        y1, y2 = _round(centre_y - half_h * context), _round(centre_y + half_h * context)
        if x2 < x1 or y2 < y1:
            raise DataError(f"the window {window[2:]} is empty")
        scale_x, scale_y = f(crop) / f(x2 - x1 + 1), f(crop) / f(y2 - y1 + 1)
        left, right, top = max(0, -x1), max(0, x2 - columns + 1), max(0, -y1)
        x1, x2, y1, y2 = x1 + left, x2 - right, y1 + top, y2 - max(0, y2 - rows + 1)
        width, height = _round(f(x2 - x1 + 1) * scale_x), _round(f(y2 - y1 + 1) * scale_y)
        pad_x, pad_y = _round(f(right if mirror else left) * (scale_x)), _round(f(top) * scale_y)
        return (x1, y1, x2, y2), (pad_x, pad_y), (min(width, crop - pad_x), min(height, crop - pad_y))


def _round(value: Any) -> int:
    """C's round: halves away from zero."""
    return int(copysign(floor(abs(float(value)) + 0.5), value))
