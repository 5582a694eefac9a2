"""Residual attention beside naive attention and the bare trunk, on digits in clutter: `python benchmarks/experiments/attention.py`.

Each net is the small one of pycls/models/attention.py, with the same optimizer, the same steps and, by seed, the same split, images and
order; a training image gets a new place and new clutter at each step. `--masks out.png` draws the masks of the last residual net over test images.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pycls.experiments.digits import digits, split
from pycls.heatmaps import draw, masks_of
from pycls.models.attention import attention_small

SIZE, PIECES, PIECE, BATCH, RATE = 12, 2, 4, 64, 4e-3


def cluttered(images: Tensor, size: int, pieces: int, generator: torch.Generator, noise: float = 0.1) -> Tensor:
    """Images [N, 1, 8, 8] -> [N, 1, size, size]: each at a place of its own, over `pieces` cut from others and over noise."""
    n, _, height, width = images.shape
    canvas = noise * torch.rand(n, 1, size, size, generator=generator)
    at = torch.randint(0, size - PIECE + 1, (n, pieces, 2), generator=generator)
    cut = torch.randint(0, height - PIECE + 1, (n, pieces, 2), generator=generator)
    other = torch.randint(0, n, (n, pieces), generator=generator)
    place = torch.randint(0, size - height + 1, (n, 2), generator=generator)
    for i in range(n):
        for k in range(pieces):
            (y, x), (v, u) = at[i, k].tolist(), cut[i, k].tolist()
            piece = images[other[i, k], 0, v : v + PIECE, u : u + PIECE]
            canvas[i, 0, y : y + PIECE, x : x + PIECE] = torch.maximum(canvas[i, 0, y : y + PIECE, x : x + PIECE], piece)
        y, x = place[i].tolist()
        canvas[i, 0, y : y + height, x : x + width] = images[i, 0]
    return canvas.clamp(max=1)


def data(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Digits to train on, bare, and test images; with their classes."""
    images, classes = digits()
    generator = torch.Generator().manual_seed(seed)
    train, test = split(classes, 0.7, generator)
    return (images[train], classes[train]), (cluttered(images[test], SIZE, PIECES, generator), classes[test])


def trained(fusion: str, seed: int, steps: int, width: int) -> tuple[nn.Module, list[float], float]:
    """A net, its losses, its test accuracy."""
    (bare, classes), (held, wanted) = data(seed)
    torch.manual_seed(seed)
    model = attention_small(10, width=width, channels=1, fusion=fusion)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for _ in range(steps):
        rows = torch.randint(0, len(bare), (BATCH,), generator=generator)
        loss = F.cross_entropy(model(cluttered(bare[rows], SIZE, PIECES, generator)), classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        accuracy = float((model.eval()(held).argmax(1) == wanted).float().mean())
    return model, losses, accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--fusions", nargs="+", default=["none", "naive", "residual"])
    parser.add_argument("--masks", type=Path, help="where to draw the masks of the last residual net")
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    print("| fusion | parameters | loss, first and last tenth | test accuracy | seeds above the bare trunk | CPU seconds a run |")
    print("|---|---|---|---|---|---|")
    for fusion in args.fusions:
        start, first, last = time.process_time(), 0.0, 0.0
        found[fusion] = []
        for seed in range(args.seeds):
            model, losses, accuracy = trained(fusion, seed, args.steps, args.width)
            found[fusion].append(accuracy)
            tenth = max(args.steps // 10, 1)
            first += sum(losses[:tenth]) / tenth / args.seeds
            last += sum(losses[-tenth:]) / tenth / args.seeds
        values, bare = torch.tensor(found[fusion]), found.get("none", [])
        above = f"{sum(a > b for a, b in zip(found[fusion], bare, strict=True))} of {args.seeds}" if bare and fusion != "none" else ""
        seconds = (time.process_time() - start) / args.seeds
        parameters = sum(p.numel() for p in model.parameters())
        mean, spread = float(values.mean()), float(values.std(correction=0))
        print(f"| {fusion} | {parameters:,} | {first:.2f}, {last:.2f} | {mean:.3f} ± {spread:.3f} | {above} | {seconds:.0f} |", flush=True)
        if args.masks and fusion == "residual":
            held = data(args.seeds - 1)[1][0][:4]
            draw(held, masks_of(model, held), args.masks)


if __name__ == "__main__":
    main()
