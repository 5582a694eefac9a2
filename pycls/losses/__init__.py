"""Losses as pure functions, one file each: costs by sample or by label, and what they are divided by, under Caffe's and torch's names.

loss(logits, target, mask=None, *, normalization="valid", **options) -> 0-d tensor
loss.sums(...) -> Sums(numerator, divisor)    the same before the division, so that several batches or processes can be one
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING

from prototxt.errors import TaskError

from ..tasks import LOSSES, check_numbers, check_options

if TYPE_CHECKING:
    from ..tasks import Task
    from .reduction import Loss

_FUNCTIONS: dict[tuple[str, str], Loss] = {
    (kind, name): getattr(import_module(f"{__name__}.{place.partition('.')[0]}"), place.partition(".")[2])
    for kind, places in LOSSES.items()
    for name, place in places.items()
}


def loss_of(task: Task) -> Loss:
    """The loss function of a task."""
    return _FUNCTIONS[task.kind, task.loss]


def option_names(kind: str, loss: str) -> set[str]:
    """The options of a loss; what an age's bins are is for its task to say."""
    return {p.name for p in signature(_FUNCTIONS[kind, loss].costs).parameters.values() if p.kind is p.KEYWORD_ONLY} - {"low", "step"}


def check_loss(task: Task) -> None:
    """TaskError unless the options of a task are those of its loss, and lists have a number for each output."""
    function, what = loss_of(task), f"task {task.name!r}: the loss {task.loss!r}"
    check_options(function.costs, task.options, what, given=("low", "step"))
    for name, value in task.options.items():
        if signature(function.costs).parameters[name].annotation not in ("float", "int", "bool"):
            check_numbers(value, task.outputs, f"{what}: {name}", one=not function.classes)
    smoothing = task.options.get("label_smoothing", 0)
    if not 0 <= smoothing <= 1:
        raise TaskError(f"{what}: label_smoothing is {smoothing}; it is at least 0 and at most 1")
