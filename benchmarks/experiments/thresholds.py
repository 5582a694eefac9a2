"""A threshold for each label, on mosaics of digits whose rarest is forty times as rare as the commonest.

Tuned on validation data, tuned with shrinkage, and on the test data themselves, which nobody can have: the bound.
"""

from __future__ import annotations

import torch
from common import Plan, digits, fit, mosaics, over_seeds, predict, small_model, split, table

from pycls import Task
from pycls.metrics import Counts, label_counts
from pycls.thresholds import decided, match_rate, tune

SHARES = tuple(40 ** (-k / 9) for k in range(10))  # of the digits 0 .. 9: 1 to 1/40
STEPS, N, FEW = 200, 2000, 100


def run(seed: int) -> dict[str, dict[str, float]]:
    images, classes = digits()
    train, rest = split(len(images), 0.6, seed)
    generator = torch.Generator().manual_seed(seed)
    parts = (train, *split_rest(rest, seed))
    (x, y), (xv, yv), (xt, yt) = (mosaics(images[p], classes[p], N, SHARES, generator) for p in parts)
    torch.manual_seed(seed)
    task = Task("digits", "multilabel", 10)  # type: ignore[arg-type]
    model = fit(small_model([task], 16, width=8), x, {"digits": y}, {}, Plan(STEPS), seed)
    validation, test = (predict(model, images)["digits"].sigmoid().double() for images in (xv, xt))
    rates = [match_rate(validation[:, k], float(y[:, k].mean())) for k in range(10)]
    rules = {"0.5": 0.5, "rates of the training labels": torch.tensor(rates, dtype=torch.float64)}
    for n in (N, FEW):
        rules[f"tuned on {n:,} mosaics"] = tune(validation[:n], yv[:n])[0]
        rules[f"tuned on {n:,} mosaics, shrunk by 20"] = tune(validation[:n], yv[:n], shrink=20)[0]
    rules["tuned on the test mosaics themselves"] = tune(test, yt)[0]
    return {name: figures(label_counts(decided(test, rule), yt)) for name, rule in rules.items()}


def figures(counts: Counts) -> dict[str, float]:
    rarest = counts.f1()[7:].nan_to_num(0)
    return {"macro F1": counts.macro_f1("all"), "F1 of the three rarest": float(rarest.mean()), "micro F1": counts.micro_f1()}


def split_rest(rest: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = split(len(rest), 0.5, seed)
    return rest[first], rest[second]


def main() -> None:
    torch.set_num_threads(1)
    table(f"thresholds of ten labels, {N:,} test mosaics", over_seeds(run), "0.5", "macro F1")


if __name__ == "__main__":
    main()
