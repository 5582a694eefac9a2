"""transform_param: crop, mirror, mean and scale, in Caffe's order and arithmetic: value = (pixel - mean) * scale in float32.

A crop stands in the middle at TEST, (size - crop) / 2 rounded down, and anywhere with the same probability at TRAIN; the mean of a file
is cropped at the same place. `mirror: true` flips half of the pictures, at TEST too. Conformance: data/lmdb_*crop*, *mirror*, *mean*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..net import Layer
from .mean import read_mean
from .paths import Paths

Array = np.ndarray[Any, Any]
Size = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True, slots=True)
class Transform:
    """What a layer does to each picture. `mean` is [C, H, W] of a mean file, `values` one mean a channel or one for all."""

    scale: float = 1.0
    crop: int = 0
    mirror: bool = False
    train: bool = False
    mean: Array | None = None
    values: Array | None = None
    force_color: bool = False
    force_gray: bool = False

    @property
    def random(self) -> bool:
        """Whether two passes over a picture may differ."""
        return self.mirror or (self.train and self.crop > 0)

    def size(self, channels: int, height: int, width: int) -> Size:
        """What becomes of a picture of that size. DataError where Caffe would stop."""
        if self.crop and min(height, width) < self.crop:
            raise DataError(f"crop_size {self.crop} does not fit into a picture of {height} x {width} (height x width)")
        if self.mean is not None and self.mean.shape != (channels, height, width):
            have, want = ("x".join(map(str, shape)) for shape in (self.mean.shape, (channels, height, width)))
            raise DataError(f"the mean file is {have} (channels x height x width), the picture {want}; compute the mean of pictures of this size")
        if self.values is not None and self.values.size not in (1, channels):
            raise DataError(f"{self.values.size} mean_value for {channels} channels: write one for all, or one for each")
        return (channels, self.crop, self.crop) if self.crop else (channels, height, width)

    def apply(self, images: Array, out: Array, draw: Array | None = None) -> None:
        """Write images [..., C, H, W] of bytes or floats to `out` [..., C, h, w]; `draw` are three numbers from [0, 1) for mirror, y and x."""
        height, width = images.shape[-2:]
        size, y, x = out.shape[-2:], (height - out.shape[-2]) // 2, (width - out.shape[-1]) // 2
        if draw is not None and self.train and self.crop:
            y, x = int(draw[1] * (height - size[0] + 1)), int(draw[2] * (width - size[1] + 1))
        place = (..., slice(y, y + size[0]), slice(x, x + size[1]))
        mean = self.mean[place] if self.mean is not None else self.values
        if mean is not None and mean.ndim == 1:
            mean = mean[:, None, None]
        source = images[place]
        if draw is not None and self.mirror and draw[0] < 0.5:
            source = source[..., ::-1]
            mean = mean[..., ::-1] if mean is not None else None
        np.copyto(out, source)
        if mean is not None:
            np.subtract(out, mean, out=out)
        if self.scale != 1:
            np.multiply(out, np.float32(self.scale), out=out)

    def apply_each(self, images: Sequence[Array], out: Array, draws: Array) -> None:
        """`apply` to images [C, H, W] of one size, each with its own draw, into `out` [N, C, h, w]; what is the same for all is done at once."""
        if self.mean is not None:
            for image, result, draw in zip(images, out, draws, strict=True):
                self.apply(image, result, draw)
            return
        (height, width), (rows, columns) = images[0].shape[-2:], out.shape[-2:]
        y, x = np.full(len(out), (height - rows) // 2), np.full(len(out), (width - columns) // 2)
        if self.train and self.crop:
            y, x = (draws[:, 1] * (height - rows + 1)).astype(int), (draws[:, 2] * (width - columns + 1)).astype(int)
        flipped = draws[:, 0] < 0.5 if self.mirror else np.zeros(len(out), bool)
        for image, result, top, left, flip in zip(images, out, y.tolist(), x.tolist(), flipped.tolist(), strict=True):
            cut = image[:, top : top + rows, left : left + columns]
            result[...] = cut[..., ::-1] if flip else cut
        if self.values is not None:
            np.subtract(out, self.values[:, None, None], out=out)
        if self.scale != 1:
            np.multiply(out, np.float32(self.scale), out=out)


def transform_of(layer: Layer, paths: Paths, *, crops: bool = True) -> Transform:
    """The Transform of a layer's transform_param. DataError for what only a fork of Caffe computes."""
    param = layer.spec.transform_param
    foreign = [field.name for field, _ in param.written() if field.fork] + list(param.unknown)
    if foreign:
        raise DataError(f"transform_param.{foreign[0]} is a fork's; BVLC Caffe, which is followed here, has no such field")
    if param.has("mean_file") and param.mean_value:
        raise DataError("transform_param has mean_file and mean_value; write one of the two")
    return Transform(
        param.scale,
        param.crop_size if crops else 0,
        param.mirror,
        layer.phase == "TRAIN",
        read_mean(paths.find(param.mean_file)) if param.has("mean_file") else None,
        np.array(param.mean_value, np.float32) if param.mean_value else None,
        param.force_color,
        param.force_gray,
    )
