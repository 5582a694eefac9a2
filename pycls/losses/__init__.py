"""Losses as pure functions, one file each: costs by sample or by label, and what they are divided by, under Caffe's and torch's names.

loss(logits, target, mask=None, *, normalization="valid", **options) -> 0-d tensor
loss.sums(...) -> Sums(numerator, divisor)    the same before the division, so that several batches or processes can be one
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..tasks import LOSSES

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
