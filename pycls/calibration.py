"""Calibration: how far a probability can be believed, and one temperature that repairs it. Fitted on validation data, never on test data.

Guo et al., On Calibration of Modern Neural Networks, 2017. A positive temperature changes no ranking and no arg-max.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prototxt.errors import TaskError

from .tasks import Task

BINS = 15


class Reliability(NamedTuple):
    """Bins of confidence: how many samples, their mean confidence, the share that is right; each [bins], 0 in an empty bin."""

    samples: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over samples of |confidence - accuracy| of their bins."""
        return float((self.samples * (self.confidence - self.accuracy).abs()).sum() / self.samples.sum().clamp(min=1))


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS, *, adaptive: bool = False) -> Reliability:
    """Bins of one width, or with `adaptive` of one count of samples. confidence [n] in 0..1, right [n] as 0 or 1."""
    confidence, right = confidence.double().flatten(), right.double().flatten()
    if adaptive:
        index = torch.empty_like(confidence, dtype=torch.int64)
        index[confidence.argsort(stable=True)] = torch.arange(len(confidence), device=confidence.device) * bins // max(len(confidence), 1)
    else:
        inner = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)[1:-1]
        index = torch.bucketize(confidence, inner, right=True)
    sums = [confidence.new_zeros(bins).index_add(0, index, values) for values in (torch.ones_like(confidence), confidence, right)]
    return Reliability(sums[0], sums[1] / sums[0].clamp(min=1), sums[2] / sums[0].clamp(min=1))


def ece(confidence: Tensor, right: Tensor, bins: int = BINS, *, adaptive: bool = False) -> float:
    """Expected calibration error over bins of one width, torchmetrics' l1; `adaptive`: over bins of one count."""
    return reliability(confidence, right, bins, adaptive=adaptive).error


def believed(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What calibration is measured on, flat: confidence and whether it was right.

    Of a multiclass task the top probability and whether that class is the label; of the others P(positive) and the label itself.
    """
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    probabilities = task.probabilities(logits)
    if task.kind == "multiclass":
        top, predicted = probabilities.max(1)
        return top[kept], (predicted == target)[kept].to(top.dtype)
    _check(task)
    return probabilities.reshape(target.shape)[kept], target[kept].to(probabilities.dtype)


def brier(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Mean squared distance of probabilities and labels: summed over the classes of a multiclass task, by label of the others."""
    _check(task)
    kept = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    probabilities = task.probabilities(logits)
    if task.kind == "multiclass":
        return float((probabilities - F.one_hot(torch.where(kept, target, 0), task.outputs)).square().sum(1)[kept].mean())
    return float((probabilities.reshape(target.shape) - target)[kept].square().mean())


def nll(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> float:
    """Mean negative log-likelihood of the labels, without weights or smoothing."""
    return float(_likelihood(task, logits, target, mask))


def summary(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """NLL, Brier score, and both calibration errors."""
    confidence, right = believed(task, logits, target, mask)
    return {
        "NLL": nll(task, logits, target, mask),
        "Brier": brier(task, logits, target, mask),
        "ECE": ece(confidence, right),
        "adaptive_ECE": ece(confidence, right, adaptive=True),
    }


def fit_temperature(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None = None, *, per_label: bool = False) -> Tensor:
    """The temperature, 0-d, by which the logits are divided for the least NLL; with `per_label` one for each label [K].

    Logits that part the classes without a fault have none, since ever colder is ever better: it then stops at 1/100.
    """
    _check(task)
    if mask is not None and not bool(mask.any()):
        raise TaskError(f"task {task.name!r} has no label to fit a temperature on")
    logits = logits.detach().double()
    log_t = torch.zeros(logits.shape[1] if per_label and task.kind == "multilabel" else (), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = _likelihood(task, logits / log_t.clamp(-4.60517, 4.60517).exp(), target, mask)
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_t.detach().clamp(-4.60517, 4.60517).exp()


def _likelihood(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    from .losses.bce import bce
    from .losses.cross_entropy import cross_entropy

    _check(task)
    return (cross_entropy if task.kind == "multiclass" else bce)(logits, target, mask)


def _check(task: Task) -> None:
    if task.kind == "age":
        raise TaskError(f"task {task.name!r}: an age is not calibrated; its error is in years")
