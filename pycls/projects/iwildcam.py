"""iWildCam 2019: which animal is before a camera that the net has never seen?

Layout: a COCO Camera Traps JSON and a folder of pictures. Training and validation share no location, so a sequence is never torn. Pictures
of the night are infrared and marked, so that the report has a row for each kind. A sequence is one event: its frames may vote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prototxt import LabelError
from prototxt.files import check_file, write_file

from ..labels import LabelTable, rooted, write_label_file
from ..readers.camera_traps import read_camera_traps
from .files import probabilities, write_csv
from .splits import group_split

if TYPE_CHECKING:
    from ..classify.bundle import Bundle

GREY = 4.0  # mean difference of two channels, of 255, below which a picture is an infrared one


Watch = Callable[[Sequence[str]], Iterable[str]]  # goes through the paths, and may show how far it is


def prepare(
    annotations: str | Path, images: str | Path, output: str | Path, *, seed: int = 0, validation: float = 0.2, watch: Watch = iter
) -> dict[str, Path]:
    """Write train.tsv and val.tsv: disjoint locations, with location, sequence and source (colour or infrared). LabelError without locations."""
    table = rooted(read_camera_traps(annotations), Path(images).resolve())
    if "location" not in table.notes:
        raise LabelError(f"{annotations}: the images have no `location`, so no split by camera can be made")
    table = replace(table, notes={**table.notes, "source": np.array([_source(path) for path in watch(table.paths)], dtype=object)})
    rows = group_split(table.notes["location"], {"train": 1 - validation, "val": validation}, seed)
    return _written({split: table.take(index) for split, index in rows.items()}, Path(output))


def submission(bundle: Bundle, annotations: str | Path, images: str | Path, output: str | Path, *, vote: bool = True) -> int:
    """Write `id,animal_class` of every image of a test JSON, the class as its category id; the number of rows.

    With `vote` the frames of a sequence share the mean of their probabilities.
    """
    table = rooted(read_camera_traps(annotations), images)
    data = json.loads(check_file(annotations).read_bytes())
    ids = {str(c["name"]): c["id"] for c in data["categories"]}
    task, said = probabilities(bundle, "multiclass", table.paths)
    unknown = [name for name in task.classes if name not in ids]
    if unknown:
        raise LabelError(f"{annotations}: has no category {unknown[0]!r}, which the bundle knows; is it of the same data set?")
    if vote and "sequence" in table.notes:
        said = voted(said, table.notes["sequence"])
    rows = [(image["id"], ids[task.classes[k]]) for image, k in zip(data["images"], said.argmax(1), strict=True)]
    return write_csv(output, ("id", "animal_class"), rows)


def voted(said: np.ndarray[Any, Any], sequences: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Each row of probabilities [N, C] becomes the mean of its sequence's rows; a row without a sequence stays as it is."""
    _, members = np.unique(sequences.astype(str), return_inverse=True)
    sums = np.zeros((members.max() + 1, said.shape[1]))
    np.add.at(sums, members, said)
    means = (sums / np.bincount(members)[:, None])[members]
    return np.where((sequences == "")[:, None], said, means)


def generate(folder: str | Path, *, seed: int = 0, sequences: int = 60, size: int = 32) -> Path:
    """A small data set in this layout, drawn: empty, deer or raccoon; ten cameras, each with a background of its own; half of it by night."""
    from PIL import Image

    folder, rng = Path(folder), np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = {0: "empty", 1: "deer", 8: "raccoon"}
    places = rng.integers(70, 130, (10, 3))
    images: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for s in range(sequences):
        camera, kind, night = s % 10, int(rng.choice(list(names))), bool(rng.random() < 0.5)
        for frame in range(2):
            name = f"s{s:03d}_{frame}"
            picture = places[camera] + rng.normal(0, 8, (size, size, 3))
            y, x = rng.integers(0, size - 16, 2)
            if kind == 1:
                picture[y : y + 16, x : x + 6] = (220, 180, 120)
            if kind == 8:
                picture[y : y + 6, x : x + 16] = (15, 15, 20)
            if night:
                picture = np.repeat(picture.mean(2, keepdims=True), 3, 2)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
            images.append({"id": name, "file_name": f"{name}.png", "location": f"cam{camera}", "seq_id": f"s{s:03d}", "frame_num": frame})
            notes.append({"id": len(notes), "image_id": name, "category_id": kind})
    categories = [{"id": k, "name": v} for k, v in names.items()]
    write_file(folder / "annotations.json", json.dumps({"images": images, "annotations": notes, "categories": categories}))
    return folder / "annotations.json"


def _source(path: str) -> str:
    """colour, or infrared, as cameras see by night."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(check_file(path)) as picture:
            picture.draft("RGB", (64, 64))  # a JPEG is decoded at an eighth
            small = np.asarray(picture.convert("RGB").resize((32, 32)), dtype=np.float32)
    except (OSError, UnidentifiedImageError) as exc:
        raise LabelError(f"{path}: does not decode: {exc}") from exc
    return "infrared" if np.abs(small - small.mean(2, keepdims=True)).mean() < GREY else "colour"


def _written(tables: dict[str, LabelTable], output: Path) -> dict[str, Path]:
    output.mkdir(parents=True, exist_ok=True)
    for split, table in tables.items():
        write_label_file(table, output / f"{split}.tsv")
    return {split: output / f"{split}.tsv" for split in tables}
