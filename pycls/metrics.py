"""Metrics over labels that may be missing, each under the name of its convention.

What can be counted is counted first, and counts add up over batches and processes: so no mean of means, and no duplicate of a padded
batch. A missing label enters nothing. A class or label for which a number means nothing has nan there, and the means say how many they left out.

Three means over classes go by the name "macro F1"; they differ as soon as a class is absent:
all     over all classes, an absent one counts 0        torchmetrics' and scikit-learn's multilabel
seen    over those in the labels or the predictions     scikit-learn's and torchmetrics' multiclass
true    over those in the labels                        wilds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prototxt.errors import TaskError

from . import calibration
from .losses.multi_task import meant
from .tasks import Task, one_of

CONVENTIONS = ("all", "seen", "true")
MANY, FEW = 100, 20  # training samples of a class: more than MANY, fewer than FEW


class Interval(NamedTuple):
    """A share and the interval that it may lie in; nan without samples."""

    value: float
    low: float
    high: float


def wilson(hits: float, n: float, z: float = 1.959964) -> Interval:
    """Wilson's score interval of hits in n, 95 % by default: 3 of 3 is 0.44 to 1, not "100 %"."""
    if not n:
        return Interval(math.nan, math.nan, math.nan)
    share, spread = hits / n, z * z / n
    center = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return Interval(share, max(0.0, center - half), min(1.0, center + half))


class Counts(NamedTuple):
    """True and false positives and negatives by class or label, int64 [K]; they add up over batches: see `added`."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor

    def recall(self) -> Tensor:
        """tp / positives [K]; nan where a class has no sample."""
        return _ratio(self.tp, self.tp + self.fn)

    def precision(self) -> Tensor:
        """tp / predicted [K]; nan where nothing is predicted."""
        return _ratio(self.tp, self.tp + self.fp)

    def specificity(self) -> Tensor:
        """tn / negatives [K]; nan where there is no negative."""
        return _ratio(self.tn, self.tn + self.fp)

    def f1(self) -> Tensor:
        """2 tp / (2 tp + fp + fn) [K]; nan where a class is neither in the labels nor predicted."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def macro_f1(self, convention: str) -> float:
        """The mean of F1 over the classes that the convention takes: all, seen, true."""
        one_of(convention, CONVENTIONS, "the convention of a macro mean")
        f1, positives = self.f1().nan_to_num(0.0), self.tp + self.fn
        taken = {"all": torch.ones_like(positives, dtype=torch.bool), "seen": positives + self.fp > 0, "true": positives > 0}[convention]
        return _mean(f1[taken])

    def micro_f1(self) -> float:
        """F1 of all decisions together."""
        return float(_ratio(2 * self.tp.sum(), (2 * self.tp + self.fp + self.fn).sum()))

    def mean_accuracy(self) -> float:
        """mA: the mean over labels of (recall + specificity) / 2; a label without positives or without negatives is left out."""
        return _mean((self.recall() + self.specificity()) / 2)

    def added(self, other: Counts) -> Counts:
        """The counts of both."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


def confusion(predicted: Tensor, target: Tensor, mask: Tensor | None, classes: int) -> Tensor:
    """Confusion matrix int64 [C, C]: rows are the labels, columns the predictions. Both int64 [N]."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    if not bool(kept.any()):
        return torch.zeros(classes, classes, dtype=torch.int64)
    return multiclass_confusion_matrix(predicted[kept], target[kept].long(), classes).cpu()  # type: ignore[no-any-return]


def counts_of(matrix: Tensor) -> Counts:
    """One class against the others, from a confusion matrix."""
    tp = matrix.diag()
    fp, fn = matrix.sum(0) - tp, matrix.sum(1) - tp
    return Counts(tp, fp, fn, matrix.sum() - tp - fp - fn)


def label_counts(decided: Tensor, target: Tensor, mask: Tensor | None = None) -> Counts:
    """Counts by label of 0/1 decisions. All [N, K]."""
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    yes, there = decided > 0, target > 0.5
    return Counts(*((kept & a & b).sum(0).cpu() for a, b in ((yes, there), (yes, ~there), (~yes, there), (~yes, ~there))))


def average_precision(scores: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average precision by label [K]; nan for a label without positives, where torchmetrics has -0. All [N, K]."""
    from torchmetrics.functional.classification import binary_average_precision

    return _by_label(binary_average_precision, scores, target, mask, negatives=False)


def auroc(scores: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Area under the ROC curve by label [K]; nan for a label without positives or without negatives. All [N, K]."""
    from torchmetrics.functional.classification import binary_auroc

    return _by_label(binary_auroc, scores, target, mask, negatives=True)


def _by_label(metric: Any, scores: Tensor, target: Tensor, mask: Tensor | None, *, negatives: bool) -> Tensor:
    values = []
    for k in range(target.shape[1]):
        kept = slice(None) if mask is None else mask[:, k]
        there = (target[kept, k] > 0.5).long()
        sound = bool(there.any()) and not (negatives and bool(there.all()))
        values.append(float(metric(scores[kept, k], there)) if sound else math.nan)
    return torch.tensor(values, dtype=torch.float64)


class Instances(NamedTuple):
    """Agreement by sample, averaged: of a sample only the labels that are there, and only samples for which the share has a meaning."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    exact: float
    hamming: float


def instances(decided: Tensor, target: Tensor, mask: Tensor | None = None) -> Instances:
    """Attribute recognition's metrics by sample. All [N, K].

    accuracy |y and p| / |y or p|, precision |y and p| / |p|, recall |y and p| / |y|, F1 of those two means; exact: all of its labels
    right; hamming: the share of wrong decisions.
    """
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    yes, there = (decided > 0) & kept, (target > 0.5) & kept
    both, either = (yes & there).sum(1), (yes | there).sum(1)
    wrong, labelled = (yes ^ there).sum(1), kept.sum(1)
    precision, recall = _mean(_ratio(both, yes.sum(1))), _mean(_ratio(both, there.sum(1)))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    exact = _mean((wrong == 0)[labelled > 0].double())
    return Instances(_mean(_ratio(both, either)), precision, recall, f1, exact, float(_ratio(wrong.sum(), labelled.sum())))


def shots(train_counts: Sequence[float], many: float = MANY, few: float = FEW) -> dict[str, list[int]]:
    """Classes by how often they were seen in training: {"many": more than `many`, "medium": between, "few": fewer than `few`}."""
    groups: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
    for i, n in enumerate(train_counts):
        groups["many" if n > many else "few" if n < few else "medium"].append(i)
    return groups


def cumulative_score(years: Tensor, target: Tensor, mask: Tensor | None = None, within: float = 5) -> float:
    """CS@5: the share of ages that are off by at most `within` years. All [N]."""
    kept = slice(None) if mask is None else mask
    return _mean(((years - target)[kept].abs() <= within).double())


# The summary of a task ------------------------------------------------------------------------------------------------


def evaluate(
    task: Task,
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    threshold: float | Tensor = 0.5,
    train_counts: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Everything about one task, as plain values: its metrics by name, a row for each class or label, the conventions in words.

    Logits [N, outputs] of all samples, once each. With `train_counts` (samples of each class in training) also recall by shots. A
    number without a meaning is None.
    """
    logits, target = logits.detach().cpu().double(), target.cpu()
    target, mask = meant(task, target, None if mask is None else mask.cpu())
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    found: dict[str, Any] = {"task": task.name, "kind": task.kind, "labels": int(kept.sum()), "missing": int((~kept).sum())}
    if not found["labels"]:
        return {**found, "metrics": {}, "classes": []}
    return _plain({**found, **_EVALUATIONS[task.kind](task, logits, target, kept, threshold, train_counts)})


def _multiclass(task: Task, logits: Tensor, target: Tensor, kept: Tensor, _: object, train_counts: Sequence[float] | None) -> dict[str, Any]:
    target = torch.where(kept, target, 0).long()
    matrix = confusion(logits.argmax(1), target, kept, task.outputs)
    counts = counts_of(matrix)
    one_hot = torch.nn.functional.one_hot(target, task.outputs)
    precisions = average_precision(logits.softmax(1)[kept], one_hot[kept])
    metrics = {
        "accuracy": float(_ratio(counts.tp.sum(), matrix.sum())),
        "balanced_accuracy": _mean(counts.recall()),
        **_macros(counts),
        "mAP": _mean(precisions),
        **calibration.summary(task, logits, target, kept),
    }
    by_shots = _by_shots(counts, train_counts)
    return {
        "metrics": {**metrics, **by_shots},
        "classes": _rows(task, counts, precisions),
        "confusion": matrix.tolist(),
        "notes": _notes(task, precisions),
    }


def _labels(
    task: Task, logits: Tensor, target: Tensor, kept: Tensor, threshold: float | Tensor, train_counts: Sequence[float] | None
) -> dict[str, Any]:
    """Binary tasks as one label, multilabel ones as several."""
    target, kept = target.reshape(len(target), -1), kept.reshape(len(kept), -1)
    scores = task.probabilities(logits)
    decided = scores >= threshold
    counts = label_counts(decided, target, kept)
    precisions, areas = average_precision(scores, target, kept), auroc(scores, target, kept)
    right = _ratio((counts.tp + counts.tn).sum(), kept.sum())
    metrics: dict[str, Any] = {"accuracy": float(right), "mA": counts.mean_accuracy()}
    if task.kind == "binary":
        metrics |= {"f1": float(counts.f1()[0]), "precision": float(counts.precision()[0]), "recall": float(counts.recall()[0])}
        metrics |= {"specificity": float(counts.specificity()[0])}
    else:
        sample = instances(decided, target, kept)._asdict()
        metrics |= {**_macros(counts), "micro_f1": counts.micro_f1(), **{f"instance_{name}": value for name, value in sample.items()}}
    metrics |= {"mAP" if task.kind == "multilabel" else "AP": _mean(precisions), "AUROC": _mean(areas)}
    metrics |= calibration.summary(task, logits, target, kept)
    return {
        "metrics": metrics | _by_shots(counts, train_counts),
        "classes": _rows(task, counts, precisions, areas),
        "notes": _notes(task, precisions),
    }


def _age(task: Task, logits: Tensor, target: Tensor, kept: Tensor, *_: object) -> dict[str, Any]:
    years, target = task.activate(logits)[kept], target[kept].double()
    error = (years - target).abs()
    return {"metrics": {"MAE": _mean(error), "CS@5": cumulative_score(years, target), "bias": _mean(years - target)}, "classes": []}


_EVALUATIONS: dict[str, Any] = {"multiclass": _multiclass, "binary": _labels, "multilabel": _labels, "age": _age}


def _macros(counts: Counts) -> dict[str, float]:
    return {f"macro_f1_{convention}": counts.macro_f1(convention) for convention in CONVENTIONS}


def _by_shots(counts: Counts, train_counts: Sequence[float] | None) -> dict[str, float]:
    recall = counts.recall()
    if train_counts is None or len(recall) == 1:
        return {}
    if len(train_counts) != len(recall):
        raise TaskError(f"{len(train_counts)} counts of training samples for {len(recall)} classes")
    return {f"recall_{group}": _mean(recall[classes]) for group, classes in shots(train_counts).items()}


def _rows(task: Task, counts: Counts, precisions: Tensor, areas: Tensor | None = None) -> list[dict[str, Any]]:
    names = task.names[1:] if task.kind == "binary" else task.names
    rows = []
    for k, name in enumerate(names):
        positives = int(counts.tp[k] + counts.fn[k])
        recall = wilson(float(counts.tp[k]), positives)
        row = {"class": name, "n": positives, "recall": recall.value, "recall_low": recall.low, "recall_high": recall.high}
        row |= {"precision": float(counts.precision()[k]), "f1": float(counts.f1()[k]), "AP": float(precisions[k])}
        rows.append(row if areas is None else row | {"AUROC": float(areas[k]), "specificity": float(counts.specificity()[k])})
    return rows


def _notes(task: Task, precisions: Tensor) -> list[str]:
    absent, notes = int(precisions.isnan().sum()), []
    if task.kind != "binary":
        notes.append(
            "macro F1: _all counts an absent class as 0; _seen leaves out what is not labelled and not predicted, _true what is not labelled"
        )
    if absent:
        notes.append(f"mAP leaves out {absent} of {len(precisions)} without a positive")
    return notes


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part.double() / whole.clamp(min=1), math.nan)


def _mean(values: Tensor) -> float:
    """The mean of the numbers that are none of them nan; nan if there is none."""
    numbers = values[~values.isnan()]
    return float(numbers.double().mean()) if len(numbers) else math.nan


def _plain(value: Any) -> Any:
    """The value with None for nan, as JSON needs it."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
