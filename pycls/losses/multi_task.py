"""The loss of several tasks: each over the labels that it has, weighted, summed; the same in one batch or many, one process or many.

L = sum over t of w_t * sum over i of m_it l_t(i) / divisor_t. A trainer that accumulates, or runs on several devices, counts first:

divisors = label_divisors(targets, masks, tasks)      of all micro-batches of a step, added up
divisors = all_reduced(divisors)                      over processes
total, parts = multi_task_loss(outputs, targets, masks, tasks, divisors=divisors, scale=world)     DDP takes means: world undoes that
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tasks import Task
from . import loss_of
from .reduction import divided

Batch = Mapping[str, Tensor]


class Part(NamedTuple):
    """One task's share: the summed costs, what they are divided by, and the quotient; each 0-d, without the task's weight."""

    numerator: Tensor
    divisor: Tensor
    loss: Tensor


def multi_task_loss(
    outputs: Batch,
    targets: Batch,
    masks: Batch,
    tasks: Iterable[Task],
    *,
    divisors: Batch | None = None,
    scale: float = 1.0,
    weights: Mapping[str, float | Tensor] | None = None,
) -> tuple[Tensor, dict[str, Part]]:
    """The weighted sum 0-d, and each task's part. Outputs, targets, masks by task; a task without a mask has all its labels.

    `divisors` replace the batch's own; `weights` replace the tasks'. A task without a label adds 0 and a gradient of zeros.
    """
    parts: dict[str, Part] = {}
    total: Tensor | None = None
    for task in tasks:
        target, mask = meant(task, targets[task.name], masks.get(task.name))
        sums = loss_of(task).sums(outputs[task.name], target, mask, normalization=task.normalization, **loss_options(task))
        divisor = sums.divisor if divisors is None else divisors[task.name].to(sums.divisor.device)
        parts[task.name] = Part(sums.numerator, sums.divisor, scale * divided(sums.numerator, divisor))
        weight = task.weight if weights is None else weights[task.name]
        term = weight * parts[task.name].loss
        total = term if total is None else total + term
    if total is None:
        raise ValueError("a loss needs a task")
    return total, parts


def label_divisors(targets: Batch, masks: Batch, tasks: Iterable[Task]) -> dict[str, Tensor]:
    """What each task's loss is divided by, 0-d, from the labels alone."""
    divisors = {}
    for task in tasks:
        target, mask = meant(task, targets[task.name], masks.get(task.name))
        divisors[task.name] = loss_of(task).divisor(target, mask, normalization=task.normalization, **loss_options(task))
    return divisors


def all_reduced(divisors: Batch) -> dict[str, Tensor]:
    """Divisors summed over all processes, in one message; as they are where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(divisors)
    stacked = torch.stack(list(divisors.values()))
    torch.distributed.all_reduce(stacked)
    return dict(zip(divisors, stacked.unbind(), strict=True))


def meant(task: Task, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Target and mask under the task's meaning of NA: a class of its own, a negative, or nothing."""
    if mask is None or task.na == "ignore":
        return target, mask
    missing = len(task.classes) if task.na == "class" else 0
    return torch.where(mask, target, missing), None


def loss_options(task: Task) -> dict[str, Any]:
    """The options of a task's loss: those given, and the bins of an age."""
    bins = {"low": task.low, "step": task.step} if task.kind == "age" else {}
    return {**bins, **task.options}
