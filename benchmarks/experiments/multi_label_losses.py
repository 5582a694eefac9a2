"""Which losses rank labels better, and which only decide otherwise: mosaics of digits, the rarest forty times as rare as the commonest."""

from __future__ import annotations

import torch
from common import Plan, digits, fit, mosaics, over_seeds, predict, small_model, split, table
from thresholds import SHARES, STEPS, N, split_rest

from pycls import Task
from pycls.calibration import ece
from pycls.losses.weights import label_weights
from pycls.metrics import average_precision, label_counts
from pycls.thresholds import decided, tune


def run(seed: int) -> dict[str, dict[str, float]]:
    images, classes = digits()
    train, rest = split(len(images), 0.6, seed)
    generator = torch.Generator().manual_seed(seed)
    (x, y), (xv, yv), (xt, yt) = (mosaics(images[p], classes[p], N, SHARES, generator) for p in (train, *split_rest(rest, seed)))
    tasks = {
        "BCE": Task("digits", "multilabel", 10),  # type: ignore[arg-type]
        "BCE, weighted by rates": Task("digits", "multilabel", 10, options=label_weights(y.sum(0).tolist(), [len(y)] * 10)),  # type: ignore[arg-type]
        "focal, gamma 2": Task("digits", "multilabel", 10, loss="focal"),  # type: ignore[arg-type]
        "asymmetric": Task("digits", "multilabel", 10, loss="asymmetric"),  # type: ignore[arg-type]
        "margin": Task("digits", "multilabel", 10, loss="margin"),  # type: ignore[arg-type]
    }
    found = {}
    for name, task in tasks.items():
        torch.manual_seed(seed)
        model = fit(small_model([task], 16, width=8), x, {"digits": y}, {}, Plan(STEPS), seed)
        validation, test = (predict(model, images)["digits"].sigmoid().double() for images in (xv, xt))
        precisions = average_precision(test, yt)
        found[name] = {
            "mAP": float(precisions.nanmean()),
            "AP of the three rarest": float(precisions[7:].nanmean()),
            "macro F1 at 0.5": label_counts(decided(test, 0.5), yt).macro_f1("all"),
            "macro F1, tuned": label_counts(decided(test, tune(validation, yv)[0]), yt).macro_f1("all"),
            "ECE": ece(test.flatten(), yt.flatten()),
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    table(f"{N:,} mosaics, {STEPS} steps of 64", over_seeds(run), "BCE", "mAP")


if __name__ == "__main__":
    main()
