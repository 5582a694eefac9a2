"""Face attributes: what a picture of a face shows, as people who looked at it said.

Layout: CelebA's list_attr_celeba.txt with identity_CelebA.txt and list_eval_partition.txt; or a label file of tasks that may be missing,
as gender, hat, mask and glasses of the lecture are. No identity is in two splits. Attributes are perceived ones, and the report's table
for each group shows where the net errs more.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from prototxt import LabelError
from prototxt.files import write_file

from ..labels import LabelTable, rooted, write_label_file
from ..readers.celeba import read_celeba
from .splits import group_split

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def prepare(
    attributes: str | Path, images: str | Path, output: str | Path, *, partition: str = "", identities: str = "", seed: int = 0
) -> dict[str, Path]:
    """Write train.tsv, val.tsv and test.tsv by the official partition, or else by identity; -1 of the list is a negative label.

    LabelError if an identity is in two splits of the partition, or if there is neither a partition nor identities.
    """
    table = read_celeba(attributes, partition=partition or None, identities=identities or None, negative=["-1"])
    table = rooted(table, Path(images).resolve())
    if partition:
        rows = {split: np.flatnonzero(table.notes["split"] == split) for split in SHARES}
        _disjoint(table, rows, partition)
    elif identities:
        rows = group_split(table.notes["identity"], SHARES, seed)
    else:
        raise LabelError(f"{attributes}: a split needs list_eval_partition.txt or identity_CelebA.txt; one face in two splits is a leak")
    table = replace(table, notes={name: values for name, values in table.notes.items() if name != "split"})
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    made = {split: output / f"{split}.tsv" for split, index in rows.items() if len(index)}
    for split, path in made.items():
        write_label_file(table.take(rows[split]), path)
    return made


def generate(folder: str | Path, *, seed: int = 0, people: int = 40, size: int = 32) -> Path:
    """A small data set in this layout, drawn: round faces, each person's own colour, with or without glasses, hat and smile."""
    from PIL import Image

    folder, rng = Path(folder), np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size]
    names, lines, persons, parts = ("Eyeglasses", "Smiling", "Wearing_Hat"), [], [], []
    for person in range(people):
        colour = rng.integers(90, 230, 3)
        for shot in range(3):
            file = f"{3 * person + shot + 1:06d}.png"
            glasses, smile, hat = rng.random(3) < 0.5
            picture = np.full((size, size, 3), 60.0) + rng.normal(0, 8, (size, size, 3))
            picture[np.hypot(y - size / 2, x - size / 2) < size / 3] = colour
            middle = size // 2
            if glasses:
                picture[middle - 5 : middle - 2, middle - 8 : middle + 8] = 10
            if smile:
                picture[middle + 4 : middle + 6, middle - 4 : middle + 4] = (220, 40, 60)
            if hat:
                picture[2:8, middle - 9 : middle + 9] = (20, 30, 120)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "images" / file)
            lines.append(f"{file} " + " ".join("1" if v else "-1" for v in (glasses, smile, hat)))
            persons.append(f"{file} {person + 1}")
            parts.append(f"{file} {0 if person < 0.7 * people else 1 if person < 0.85 * people else 2}")
    write_file(folder / "list_attr_celeba.txt", "\n".join([str(len(lines)), " ".join(names), *lines]) + "\n")
    write_file(folder / "identity_CelebA.txt", "\n".join(persons) + "\n")
    write_file(folder / "list_eval_partition.txt", "\n".join(parts) + "\n")
    return folder / "list_attr_celeba.txt"


def _disjoint(table: LabelTable, rows: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]], partition: str) -> None:
    if "identity" not in table.notes:
        return
    seen: dict[str, str] = {}
    for split, index in rows.items():
        for i in map(int, index):
            person = str(table.notes["identity"][i])
            if seen.setdefault(person, split) != split:
                raise LabelError(f"{partition}: identity {person} is in {seen[person]} and in {split} ({table.places[i]})")
