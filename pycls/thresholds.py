"""Thresholds by label, and when not to answer. Both are chosen on validation data; `nested_f1` says what they are worth without peeking."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from prototxt.errors import TaskError

DEFAULT = 0.5
ABOVE = 1e-6  # above a score, in float32 too


class Threshold(NamedTuple):
    """A threshold of one label and its F1 where it was chosen; `sound` is False if there was no positive to choose by."""

    value: float
    f1: float
    sound: bool


def best_threshold(scores: Tensor, target: Tensor) -> Threshold:
    """The threshold of the largest F1, by an exact sweep. scores, target [n].

    It lies midway between two scores that differ; of several that are equally good it is the one nearest to 0.5. Without a positive
    it stays at 0.5.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order].double(), (target[order] > 0.5).double().cumsum(0)
    if not len(hits) or not hits[-1]:
        return Threshold(DEFAULT, math.nan, False)
    following = torch.cat([ranked[1:], ranked.new_zeros(1)])
    f1 = 2 * hits / (torch.arange(1, len(hits) + 1, device=hits.device) + hits[-1])
    f1 = torch.where(ranked > following, f1, -1.0)  # equal scores are decided alike
    f1[-1] = 2 * hits[-1] / (len(hits) + hits[-1])
    middle = (ranked + following) / 2
    best = f1 == f1.max()
    value = middle[best][(middle[best] - DEFAULT).abs().argmin()]
    return Threshold(float(value), float(f1.max()), True)


def tune(scores: Tensor, target: Tensor, mask: Tensor | None = None, *, shrink: float = 0.0) -> tuple[Tensor, list[Threshold]]:
    """Thresholds [K] of the labels, and what each was chosen by. All [N, K].

    `shrink` pulls each towards the threshold of all labels together, as that many positives would: with few positives a
    threshold fits their noise.
    """
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    chosen = [best_threshold(scores[kept[:, k], k], target[kept[:, k], k]) for k in range(target.shape[1])]
    values = torch.tensor([c.value for c in chosen], dtype=torch.float64)
    if shrink:
        common = best_threshold(scores[kept], target[kept]).value
        positives = ((target > 0.5) & kept).sum(0).cpu().double()
        values = (positives * values + shrink * common) / (positives + shrink)
    return values, chosen


def match_rate(scores: Tensor, rate: float) -> float:
    """The threshold that calls the share `rate` of the scores [n] positive, as the labels of the training set are."""
    ranked = scores.double().sort(descending=True).values
    count = min(max(round(rate * len(ranked)), 0), len(ranked))
    if count == 0:
        return float(ranked[0]) + ABOVE if len(ranked) else DEFAULT
    return float(ranked[count - 1] + (ranked[count] if count < len(ranked) else 0.0)) / 2


def expected_f1_threshold(probabilities: Tensor) -> float:
    """The threshold of the largest expected F1 if the probabilities [n] are calibrated; needs no labels."""
    ranked = probabilities.double().sort(descending=True).values
    sizes = torch.arange(1, len(ranked) + 1, device=ranked.device)
    expected = 2 * ranked.cumsum(0) / (sizes + ranked.sum())
    best = int(expected.argmax())
    return float(ranked[best] + (ranked[best + 1] if best + 1 < len(ranked) else 0.0)) / 2


def decided(scores: Tensor, thresholds: Tensor | float, *, at_least_one: bool = False) -> Tensor:
    """Decisions 0 or 1, int64 [N, K]; with `at_least_one` the likeliest label is always on."""
    on = (scores >= torch.as_tensor(thresholds, dtype=scores.dtype, device=scores.device)).long()
    return on.scatter(1, scores.argmax(1, keepdim=True), 1) if at_least_one else on


def nested_f1(scores: Tensor, target: Tensor, mask: Tensor | None = None, *, folds: int = 5, shrink: float = 0.0, seed: int = 0) -> Tensor:
    """F1 by label [K] of tuned thresholds on samples that they were not tuned on: each fold is decided by the thresholds of the others."""
    from .metrics import label_counts

    if not 2 <= folds <= len(scores):
        raise TaskError(f"{folds} folds of {len(scores)} samples: it needs 2 or more, and a sample for each")
    fold = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed)) % folds
    made = torch.zeros_like(target, dtype=torch.int64)
    for f in range(folds):
        rest, here = fold != f, fold == f
        values, _ = tune(scores[rest], target[rest], None if mask is None else mask[rest], shrink=shrink)
        made[here] = decided(scores[here], values)
    return label_counts(made, target, mask).f1()


# When not to answer ---------------------------------------------------------------------------------------------------


class RiskCoverage(NamedTuple):
    """Answering only above a confidence: the threshold, falling, the share answered, the share of the answers that is wrong; each [n]."""

    threshold: Tensor
    coverage: Tensor
    risk: Tensor

    @property
    def area(self) -> float:
        """Area under risk over coverage: less is better."""
        return float(self.risk.mean())


def risk_coverage(confidence: Tensor, right: Tensor) -> RiskCoverage:
    """The curve to choose `abstain` by. confidence [n], right [n] as 0 or 1."""
    order = confidence.argsort(descending=True, stable=True)
    answered = torch.arange(1, len(order) + 1, device=order.device).double()
    wrong = (1 - right[order].double()).cumsum(0)
    return RiskCoverage(confidence[order].double(), answered / max(len(order), 1), wrong / answered)


def abstain_below(confidence: Tensor, right: Tensor, risk: float) -> float:
    """The lowest confidence at which the answers kept are wrong at most in the share `risk`; above 1 if none is."""
    curve = risk_coverage(confidence, right)
    last = torch.ones_like(curve.risk, dtype=torch.bool)
    last[:-1] = curve.threshold[:-1] > curve.threshold[1:]  # equal confidences are kept or left together
    sound = curve.threshold[last & (curve.risk <= risk)]
    return float(sound.min()) if len(sound) else 1.0 + ABOVE
