"""Human Protein Atlas: which of 28 organelles does the green stain mark?

Layout: train.csv with `Id,Target`, indices between spaces, and four grey pictures an image: Id_red.png, _green, _blue, _yellow. The folds
keep each label's share, also of `Rods & rings`, which 0.04 % of the images show. Some label is always there, so an image whose
probabilities are all below their thresholds gets its likeliest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prototxt import LabelError
from prototxt.files import write_file

from ..labels import text_lines
from ..readers.protein_atlas import LABELS, STAINS, read_protein_atlas
from .files import probabilities, write_csv
from .splits import stratified_folds

if TYPE_CHECKING:
    from ..classify.bundle import Bundle

ORGANELLES = (
    *("Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center", "Nuclear speckles", "Nuclear bodies"),
    *("Endoplasmic reticulum", "Golgi apparatus", "Peroxisomes", "Endosomes", "Lysosomes", "Intermediate filaments", "Actin filaments"),
    *("Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge", "Mitotic spindle", "Microtubule organizing center"),
    *("Centrosome", "Lipid droplets", "Plasma membrane", "Cell junctions", "Mitochondria", "Aggresome", "Cytosol", "Cytoplasmic bodies"),
    "Rods & rings",
)


def prepare(labels: str | Path, output: str | Path, *, folds: int = 5, fold: int = 0, seed: int = 0) -> dict[str, Path]:
    """Write fold-train.csv and fold-val.csv in the layout of train.csv: fold `fold` of `folds` to validate on, the rest to train on."""
    table = read_protein_atlas(labels, classes=ORGANELLES)
    if not 0 <= fold < folds:
        raise LabelError(f"fold {fold} of {folds}: they count from 0")
    hot = table.values["organelle"]
    of = stratified_folds(hot, folds, seed)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for split, chosen in (("train", of != fold), ("val", of == fold)):
        rows = [(table.paths[i], _indices(hot[i])) for i in np.flatnonzero(chosen)]
        write_csv(output / f"fold-{split}.csv", ("Id", "Target"), rows)
    return {split: output / f"fold-{split}.csv" for split in ("train", "val")}


def submission(bundle: Bundle, listed: str | Path, images: str | Path, output: str | Path) -> int:
    """Write `Id,Predicted` of every Id of a list (sample_submission.csv does); the number of rows."""
    ids = [line.split(",")[0] for _, line in text_lines(listed)]
    if ids[:1] != ["Id"] or len(ids) < 2:
        raise LabelError(f"{listed}: is not a header that starts with Id, and an Id a line below it")
    task, said = probabilities(bundle, "multilabel", [str(Path(images) / name) for name in ids[1:]])
    on = said >= np.asarray(bundle.decisions[task.name].threshold())
    on[np.arange(len(on)), said.argmax(1)] |= ~on.any(1)
    return write_csv(output, ("Id", "Predicted"), [(name, _indices(row)) for name, row in zip(ids[1:], on, strict=True)])


def generate(folder: str | Path, *, seed: int = 0, images: int = 80, size: int = 32) -> Path:
    """A small data set in this layout, drawn: a nucleus in blue; in green a ring around it (1), dots in it (2), or a haze outside (25)."""
    from PIL import Image

    folder, rng = Path(folder), np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size]
    rows: list[tuple[str, str]] = []
    for n in range(images):
        middle, radius = rng.integers(size // 3, 2 * size // 3, 2), size / 5
        far = np.hypot(y - middle[0], x - middle[1])
        shapes = {1: abs(far - radius) < 1.5, 2: (far < radius) & ((y // 3 + x // 3) % 2 == 0), 25: far > radius + 3}
        present = [k for k in shapes if rng.random() < 0.5] or [int(rng.choice(list(shapes)))]
        green = sum(160 * shapes[k] for k in present)
        planes = {"red": 60 * (far < 2 * radius), "green": green, "blue": 180 * (far < radius), "yellow": 40 * (far > radius)}
        for stain in STAINS:
            noisy = np.asarray(planes[stain]) + rng.normal(0, 10, (size, size))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"image{n:03d}_{stain}.png")
        rows.append((f"image{n:03d}", " ".join(map(str, present))))
    write_csv(folder / "train.csv", ("Id", "Target"), rows)
    write_file(folder / "sample_submission.csv", "Id,Predicted\n" + "".join(f"{name},0\n" for name, _ in rows[:5]))
    return folder / "train.csv"


def _indices(hot: Sequence[Any] | np.ndarray[Any, Any]) -> str:
    """Indices of what is on, of 28: `0 25`."""
    return " ".join(str(k) for k in range(LABELS) if hot[k])
