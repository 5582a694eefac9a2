"""Inputs from files: arrays by blob name (.npz), one array (.npy), or an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prototxt import DataError
from prototxt.files import check_file

from .arrays import Arrays

if TYPE_CHECKING:
    from ..graph import Graph

Array = np.ndarray[Any, Any]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_inputs(path: Path, graph: Graph | None, mean: Sequence[float] = (), scale: float = 1.0) -> dict[str, Array]:
    """{blob: array}. An .npz has input/<blob> or <blob>; an .npy or an image goes to the net's first input, the image as Caffe reads it:
    B G R, resized to the input, (pixel - mean) * scale."""
    path = check_file(path)
    if path.suffix.lower() in IMAGES:
        return {_first(graph, path): _image(path, graph, mean, scale)}
    arrays = Arrays(path, DataError, f"neither arrays (.npz, .npy) nor an image ({', '.join(IMAGES)})")
    if arrays.alone:
        return {_first(graph, path): arrays.floats("")}
    marked = [key for key in arrays.keys if key.startswith("input/")]
    return {key.removeprefix("input/"): arrays.floats(key) for key in marked or arrays.keys}


def _first(graph: Graph | None, path: Path) -> str:
    if graph is None or not graph.inputs:
        raise DataError(f"{path}: which input it is for is not known, as neither side is a prototxt: give an .npz with input/<blob>")
    return graph.inputs[0]


def _image(path: Path, graph: Graph | None, mean: Sequence[float], scale: float) -> Array:
    from PIL import Image, UnidentifiedImageError

    shape = graph.blob_shapes[_first(graph, path)] if graph else ()
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise DataError(f"{path}: an image needs an input [N, 1 or 3, H, W], and the net's is {list(shape)}")
    if len(mean) not in (0, 1, shape[1]):
        raise DataError(f"--mean: {len(mean)} means for {shape[1]} channels: one, or one for each")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB" if shape[1] == 3 else "L").resize((shape[3], shape[2]), Image.Resampling.BILINEAR), np.float32)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as exc:
        raise DataError(f"{path}: no image that can be read: {exc}") from exc
    planes = pixels[..., ::-1].transpose(2, 0, 1) if shape[1] == 3 else pixels[None]
    return np.repeat(((planes - np.array(mean or (0.0,), np.float32).reshape(-1, 1, 1)) * np.float32(scale))[None], shape[0], 0)
