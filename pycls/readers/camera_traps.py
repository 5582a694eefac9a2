"""COCO Camera Traps JSON (iWildCam 2019 and its relatives): images with location and sequence, annotations, categories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prototxt import LabelError
from prototxt.files import read_file

from ..labels import LIMIT, Column, LabelTable

GROUPS = {"location": "location", "seq_id": "sequence", "rights_holder": "source"}


def read_camera_traps(path: str | Path, *, several: bool = False, task: str = "animal") -> LabelTable:
    """One multi-class task over the categories in order of id, or with `several` a multi-label one; an image without annotation is NA.

    `location` and `sequence` become groups. Two categories on one image without `several` are refused.
    """
    data = _load(path)
    categories = sorted(_list(path, data, "categories"), key=lambda c: int(_get(path, c, "id", "categories", 0)))
    column = Column(
        task, "multilabel" if several else "multiclass", tuple(str(_get(path, c, "name", "categories", i)) for i, c in enumerate(categories))
    )
    index = {c["id"]: i for i, c in enumerate(categories)}
    images = _list(path, data, "images")
    found: dict[Any, set[int]] = {_get(path, image, "id", "images", i): set() for i, image in enumerate(images)}
    for i, note in enumerate(_list(path, data, "annotations")):
        image, category = _get(path, note, "image_id", "annotations", i), _get(path, note, "category_id", "annotations", i)
        if image not in found or category not in index:
            what = f"image_id {image!r}" if image not in found else f"category_id {category!r}"
            raise LabelError(f"{path}: annotations[{i}]: {what} is not in the file")
        found[image].add(index[category])
    sets = [found[image["id"]] for image in images]
    crowded = [i for i, s in enumerate(sets) if len(s) > 1]
    if crowded and not several:
        raise LabelError(
            f"{path}: images[{crowded[0]}] has {len(sets[crowded[0]])} categories, {len(crowded)} images have; `several: true` makes labels of them"
        )
    values, present = _arrays(sets, column)
    notes = {
        ours: np.array([str(image.get(key, "")) for image in images], dtype=object) for key, ours in GROUPS.items() if any(key in i for i in images)
    }
    return LabelTable(
        file=str(path),
        paths=tuple(str(_get(path, image, "file_name", "images", i)) for i, image in enumerate(images)),
        columns=(column,),
        values={task: values},
        present={task: present},
        notes=notes,
        places=tuple(f"{path}: images[{i}]" for i in range(len(images))),
    )


def _arrays(sets: list[set[int]], column: Column) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Values and mask; an image without annotation is missing."""
    known = np.array([bool(s) for s in sets])
    if column.kind == "multiclass":
        return np.array([next(iter(s), 0) for s in sets], dtype=np.int64), known
    hot = np.zeros((len(sets), column.width), dtype=np.float32)
    for row, s in enumerate(sets):
        hot[row, sorted(s)] = 1
    return hot, np.repeat(known[:, None], column.width, axis=1)


def _load(path: str | Path) -> Mapping[str, Any]:
    try:
        data = json.loads(read_file(path, limit=LIMIT))
    except (ValueError, RecursionError) as exc:
        raise LabelError(f"{path}: no JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise LabelError(f"{path}: an object with images, annotations and categories is wanted")
    return data


def _list(path: str | Path, data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key, [] if key == "annotations" else None)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value) or (key == "images" and not value):
        raise LabelError(f"{path}: {key!r} is not a list of objects")
    return value


def _get(path: str | Path, item: Mapping[str, Any], key: str, part: str, i: int) -> Any:
    if isinstance(item.get(key), (str, int)):
        return item[key]
    raise LabelError(f"{path}: {part}[{i}] has no {key!r}")
