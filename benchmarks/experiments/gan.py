"""What helps a rare class: its real rows alone, repeated, augmented, or filled by a GAN. `python benchmarks/experiments/gan.py`.

"Is it an 8?" on real digits: 1,100 others and a few 8s to learn from, 80 eights and 400 others to test on, all real. Split, rows, order
and first values change with the seed; every method has the same net, optimizer and number of steps. `--picture out.png` draws real
eights above generated ones, each over its nearest real training image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sklearn.metrics import average_precision_score, f1_score
from torchvision.transforms import v2

from pycls.experiments.digits import digits
from pycls.gan import Settings, fill, nearest

OTHERS, TEST_EIGHTS, TEST_OTHERS, BATCH = 1100, 80, 400, 64
AUGMENT = v2.RandomAffine(15, translate=(0.125, 0.125), scale=(0.85, 1.15))


def folds(seed: int, rare: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and classes, test images and classes."""
    images, classes = digits()
    generator = torch.Generator().manual_seed(seed)
    eights, others = (torch.nonzero(mask).squeeze(1) for mask in (classes == 8, classes != 8))
    eights, others = (rows[torch.randperm(len(rows), generator=generator)] for rows in (eights, others))
    test = torch.cat([eights[:TEST_EIGHTS], others[:TEST_OTHERS]])
    train = torch.cat([eights[TEST_EIGHTS : TEST_EIGHTS + rare], others[TEST_OTHERS : TEST_OTHERS + OTHERS]])
    is_eight = (classes == 8).long()
    return images[train], is_eight[train], images[test], is_eight[test]


def net() -> nn.Module:
    """Two convolutions and a sigmoid's logit."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 4, 1)),
    )


def scored(images: Tensor, classes: Tensor, held: Tensor, wanted: Tensor, seed: int, steps: int, change: Callable[[Tensor], Tensor]) -> list[float]:
    """Train; recall, specificity, macro F1 at 0.5 and average precision on the real test images."""
    torch.manual_seed(seed)
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(images), (BATCH,))
        loss = F.binary_cross_entropy_with_logits(model(change(images[rows])).squeeze(1), classes[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model.eval()(held).squeeze(1)
    said = logits > 0
    recall, specificity = said[wanted == 1].float().mean(), (~said[wanted == 0]).float().mean()
    return [float(recall), float(specificity), f1_score(wanted, said, average="macro"), average_precision_score(wanted, logits)]


def repeated(images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The rare rows as often as makes the classes even."""
    eights = torch.nonzero(classes == 1).squeeze(1)
    more = eights.repeat(OTHERS // len(eights) + 1)[: OTHERS - len(eights)]
    return torch.cat([images, images[more]]), torch.cat([classes, classes[more]])


def each(images: Tensor) -> Tensor:
    """Every image of a batch augmented on its own."""
    return torch.stack([AUGMENT(image) for image in images])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rare", type=int, default=20, help="eights in the training fold")
    parser.add_argument("--steps", type=int, default=400, help="of the classifier")
    parser.add_argument("--gan-steps", type=int, default=300)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    distances: dict[str, list[float]] = {}
    start = time.process_time()
    for seed in range(args.seeds):
        images, classes, held, wanted = folds(seed, args.rare)
        eights, more = images[classes == 1], repeated(images, classes)
        for name, rows, change in (("real", (images, classes), _same), ("repeat", more, _same), ("repeat + augmentation", more, each)):
            found.setdefault(name, []).append(scored(*rows, held, wanted, seed, args.steps, change))
        for name, style in (("GAN", False), ("GAN with style", True)):
            filled = fill(images, classes, Settings(steps=args.gan_steps, width=32, style=style), seed=seed)
            found.setdefault(name, []).append(scored(filled.images, filled.classes, held, wanted, seed, args.steps, _same))
            distances.setdefault(f"{name}: generated to its nearest training 8", []).append(float(nearest(filled.generated, eights).mean()))
            if args.picture and seed == 0 and not style:
                draw(eights, filled.generated, args.picture)
        distances.setdefault("real test 8 to its nearest training 8", []).append(float(nearest(held[wanted == 1], eights).mean()))
        distances.setdefault("real training 8 to its nearest other", []).append(float(nearest(eights, eights).mean()))
    print(f"{args.rare} eights against {OTHERS} others, {args.seeds} seeds, {args.steps} steps, CPU {time.process_time() - start:.0f} s\n")
    print("| training rows | recall of 8 | specificity | macro F1 | average precision | seeds above real, by average precision |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        values = torch.tensor(rows)
        cells = " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), values.std(0, correction=0), strict=True))
        above = sum(a[3] > b[3] for a, b in zip(rows, found["real"], strict=True))
        print(f"| {name} | {cells} | {'' if name == 'real' else f'{above} of {args.seeds}'} |")
    print("\n| mean distance (8 x 8 pixels in 0..1) | |\n|---|---|")
    for name, measured in distances.items():
        print(f"| {name} | {sum(measured) / len(measured):.2f} |")


def _same(images: Tensor) -> Tensor:
    return images


def draw(real: Tensor, made: Tensor, path: Path, columns: int = 16) -> None:
    """Real images, generated ones, and under each of those its nearest real one."""
    from torchvision.utils import make_grid, save_image

    made = made[:columns]
    near = real[torch.cdist(made.flatten(1), real.flatten(1)).argmin(1)]
    grid = make_grid(torch.cat([real[:columns], made, near]), columns, padding=1, pad_value=0.5)
    save_image(F.interpolate(grid[None], scale_factor=5), path)


if __name__ == "__main__":
    main()
