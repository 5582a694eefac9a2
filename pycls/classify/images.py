"""A row's files -> an image of the size and channels that the net takes: bytes, [C, H, W]. No torch: a bundle predicts without it.

stretch: both sides to their size. crop: the short side to its size, the middle kept. pad: the long side to its size, black around it.
Where an image shrinks, pixels are averaged (OpenCV's INTER_AREA); where it grows, they are interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prototxt import DataError, LabelError
from prototxt.data.images import LIMIT, decode
from prototxt.files import read_file

from .config import ImageConfig

Array = np.ndarray[Any, Any]


def load_image(files: Sequence[str | Path], spec: ImageConfig) -> Array:
    """The image of one file, or of a file a channel. LabelError names the file that is missing or does not decode."""
    if len(files) > 1:
        return np.concatenate([resized(_decoded(file, 1, "RGB"), spec) for file in files])
    return resized(_decoded(files[0], spec.channels, spec.order), spec)


def _decoded(file: str | Path, channels: int, order: str) -> Array:
    """Bytes [C, H, W] with that many channels; three in that order, more as they stand in the file."""
    try:
        image = decode(read_file(file, limit=LIMIT), color={1: False, 3: True}.get(channels))
    except DataError as exc:
        raise LabelError(f"{file}: {exc}") from exc
    if image.shape[0] != channels:
        raise LabelError(f"{file}: has {image.shape[0]} channels, and data.image.channels is {channels}")
    return image[::-1] if channels == 3 and order == "RGB" else image


def resized(image: Array, spec: ImageConfig) -> Array:
    """[C, h, w] -> [C, height, width] of the spec."""
    import cv2

    height, width = image.shape[1:]
    if (height, width) == (spec.height, spec.width):
        return np.ascontiguousarray(image)
    if spec.resize == "stretch":
        size = (spec.height, spec.width)
    else:
        both = (spec.height / height, spec.width / width)
        factor = max(both) if spec.resize == "crop" else min(both)
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
    how = cv2.INTER_AREA if size[0] < height or size[1] < width else cv2.INTER_LINEAR
    made = cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), (size[1], size[0]), interpolation=how)
    made = made.reshape(*size, image.shape[0]).transpose(2, 0, 1)
    return np.ascontiguousarray(_framed(made, spec))


def _framed(image: Array, spec: ImageConfig) -> Array:
    """The middle of an image that is larger than the spec, black around one that is smaller."""
    out = np.zeros((image.shape[0], spec.height, spec.width), dtype=np.uint8)
    (to_y, from_y), (to_x, from_x) = _overlap(spec.height, image.shape[1]), _overlap(spec.width, image.shape[2])
    out[:, to_y, to_x] = image[:, from_y, from_x]
    return out


def _overlap(wanted: int, have: int) -> tuple[slice, slice]:
    """Where the middle of `have` lies in `wanted`, and which part of `have` that is."""
    size, a, b = min(wanted, have), max(0, (wanted - have) // 2), max(0, (have - wanted) // 2)
    return slice(a, a + size), slice(b, b + size)


def channel_constants(spec: ImageConfig, channels: int) -> tuple[Array, Array]:
    """x = pixel * factor + shift, as float32 [C]: scale, mean and std of the spec in one. LabelError where their counts do not fit."""
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) not in (0, 1, channels):
            raise LabelError(f"data.image.{name} has {len(values)} values for {channels} channels; write one for all, or one for each")
    mean = np.broadcast_to(np.array(spec.mean or (0.0,), dtype=np.float64), channels)
    std = np.broadcast_to(np.array(spec.std or (1.0,), dtype=np.float64), channels)
    return (spec.scale / std).astype(np.float32), (-mean / std).astype(np.float32)
