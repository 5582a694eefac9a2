"""Is it an 8? 1,100 negatives and 11 positives to learn from: what each cure for imbalance moves, the ranking or only the threshold.

Average precision sees the ranking alone; recall and specificity at 0.5 see the threshold too. Test: 80 positives and 400 negatives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import Plan, digits, fit, over_seeds, predict, small_model, table
from torch import Tensor

from pycls import MultiTaskModel, Task, decoupling
from pycls.losses.logit_adjustment import adjusted
from pycls.losses.weights import class_weights
from pycls.metrics import average_precision, confusion, counts_of
from pycls.samplers import make_sampler

NEGATIVES, POSITIVES, STEPS = 1100, 11, 250
COUNTS = (NEGATIVES, POSITIVES)
AUGMENT_SEED = 17


def rotated_and_moved(seed: int) -> Callable[[Tensor], Tensor]:
    """Turn by up to 12 degrees, move by up to a pixel, anew for each image."""
    generator = torch.Generator().manual_seed(AUGMENT_SEED + seed)

    def change(x: Tensor) -> Tensor:
        angle = (torch.rand(len(x), generator=generator) - 0.5) * 0.42
        shift = (torch.rand(len(x), 2, generator=generator) - 0.5) * 0.5
        rows = torch.stack([angle.cos(), -angle.sin(), shift[:, 0], angle.sin(), angle.cos(), shift[:, 1]], 1)
        return F.grid_sample(x, F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False), align_corners=False)

    return change


def draw(name: str, classes: Tensor, seed: int) -> Callable[[int], list[int]]:
    """The epochs of a sampler."""
    sampler = make_sampler(name, classes, seed=seed)

    def epoch(n: int) -> list[int]:
        sampler.set_epoch(n)
        return list(sampler)

    return epoch


def run(seed: int) -> dict[str, dict[str, float]]:
    x, digit = digits()
    target = (digit == 8).long()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    positives, negatives = (order[target[order] == c] for c in (1, 0))
    test = torch.cat([positives[:80], negatives[:400]])
    train = torch.cat([positives[80 : 80 + POSITIVES], negatives[400 : 400 + NEGATIVES]])
    x_train, y_train, x_test, y_test = x[train], target[train], x[test], target[test]
    scores: dict[str, Tensor] = {}

    def trained(name: str, loss: str = "ce", sampler: str = "", augment: bool = False, **options: object) -> MultiTaskModel:
        torch.manual_seed(seed)
        task = Task("eight", "multiclass", ("no", "yes"), loss=loss, options=options)
        plan = Plan(STEPS, draw=draw(sampler, y_train, seed) if sampler else None)
        plan.change = rotated_and_moved(seed) if augment else plan.change
        model = fit(small_model([task], width=8), x_train, {"eight": y_train}, {}, plan, seed)
        scores[name] = predict(model, x_test)["eight"]
        return model

    plain = trained("CE")
    trained("CE, everything augmented", augment=True)
    trained("weighted CE, inverse", weight=class_weights(COUNTS))
    trained("weighted CE, effective number .999", weight=class_weights(COUNTS, "effective"))
    trained("focal, gamma 2", loss="focal")
    trained("focal, inverse alpha", loss="focal", alpha=class_weights(COUNTS))
    trained("under-sampling", sampler="under")
    trained("over-sampling", sampler="over")
    trained("sqrt sampling", sampler="sqrt")
    trained("over-sampling, augmented", sampler="over", augment=True)
    trained("logit-adjusted loss", loss="logit_adjusted", prior=COUNTS)
    scores["CE, adjusted post hoc"] = adjusted(scores["CE"], COUNTS)
    again = copy.deepcopy(plain)
    torch.manual_seed(seed)
    decoupling.retrain(again, "eight")
    fit(again, x_train, {"eight": y_train}, {}, Plan(STEPS // 2, draw=draw("class_balanced", y_train, seed)), seed)
    scores["cRT"] = predict(again, x_test)["eight"]
    return {name: figures(z, y_test) for name, z in scores.items()}


def figures(logits: Tensor, target: Tensor) -> dict[str, float]:
    counts = counts_of(confusion(logits.argmax(1), target, None, 2))
    precision = average_precision((logits[:, 1:] - logits[:, :1]).double(), target[:, None])  # the margin ranks as the probability, without ties at 1
    return {
        "recall": float(counts.recall()[1]),
        "specificity": float(counts.recall()[0]),
        "macro F1": counts.macro_f1("all"),
        "average precision": float(precision[0]),
    }


def main() -> None:
    torch.set_num_threads(1)
    results = over_seeds(run)
    table(f"{NEGATIVES:,} negatives, {POSITIVES} positives, {STEPS} steps of 64", results, "CE", "recall")
    ranking = {method: [{"average precision": figures["average precision"]} for figures in runs] for method, runs in results.items()}
    table("the same nets by what they rank", ranking, "CE", "average precision")


if __name__ == "__main__":
    main()
