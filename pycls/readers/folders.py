"""A folder of folders: root/<class>/<picture>, or root/<split>/<class>/<picture>, as torchvision's ImageFolder has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prototxt import LabelError

from ..labels import Column, LabelTable

PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read_folders(path: str | Path, *, splits: Sequence[str] = (), task: str = "class") -> LabelTable:
    """One multi-class task, its classes the folders' names in order; with `splits` the first level is the split. Paths are below the root."""
    root = Path(path)
    if not root.is_dir():
        raise LabelError(f"{path}: is not a folder of class folders")
    found: list[tuple[str, str, str]] = []
    for split in splits or [""]:
        top = root / split
        if not top.is_dir():
            raise LabelError(f"{path}: has no folder {split!r}")
        for folder in sorted(p for p in top.iterdir() if p.is_dir()):
            files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
            found += [(str(file.relative_to(root)), folder.name, split) for file in files]
    if not found:
        raise LabelError(f"{path}: no folder in it holds a picture ({', '.join(sorted(PICTURES))})")
    classes = sorted({name for _, name, _ in found})
    index = {name: i for i, name in enumerate(classes)}
    notes = {"split": np.array([split for *_, split in found], dtype=object)} if splits else {}
    return LabelTable(
        file=str(path),
        paths=tuple(file for file, *_ in found),
        columns=(Column(task, "multiclass", tuple(classes)),),
        values={task: np.array([index[name] for _, name, _ in found], dtype=np.int64)},
        present={task: np.ones(len(found), dtype=bool)},
        notes=notes,
        places=tuple(f"{root / file}" for file, *_ in found),
    )
