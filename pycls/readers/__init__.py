"""Readers of label lists, one a file: each makes a LabelTable of a list as its data set ships it.

    read_labels("list_attr_celeba.txt", "celeba", negative=["-1"])

A format is named, never guessed; and so is what -1 means: CelebA's negative label is Caffe's, DeepDetect's and Paddle's "ignore".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prototxt import ConfigError

from ..labels import LabelTable, read_label_file, suggest
from .camera_traps import read_camera_traps
from .celeba import read_celeba
from .folders import read_folders
from .lists import read_caffe, read_deepdetect, read_paddle
from .protein_atlas import read_protein_atlas

__all__ = ["READERS", "read_labels"]

READERS: dict[str, Callable[..., LabelTable]] = {
    "caffe": read_caffe,
    "camera_traps": read_camera_traps,
    "celeba": read_celeba,
    "deepdetect": read_deepdetect,
    "folders": read_folders,
    "hpa": read_protein_atlas,
    "native": read_label_file,
    "paddle": read_paddle,
}


def read_labels(path: str | Path, format: str = "native", **options: Any) -> LabelTable:
    """The table of a list of that format; ConfigError for a format or an option that there is not."""
    if format not in READERS:
        raise ConfigError(f"{path}: no reader is called {format!r}{suggest(format, READERS)}")
    known = [name for name, p in inspect.signature(READERS[format]).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise ConfigError(f"{path}: the reader {format!r} has no option {name!r}{suggest(name, known)}")
    return READERS[format](path, **options)
