"""Losses as pure functions, one file each: costs by sample or by label, and what they are divided by, under Caffe's and torch's names.

loss(logits, target, mask=None, *, normalization="valid", **options) -> 0-d tensor
loss.sums(...) -> Sums(numerator, divisor)    the same before the division, so that several batches or processes can be one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks import Task
    from .reduction import Loss


def loss_of(task: Task) -> Loss:
    """The loss function of a task, from its home."""
    from importlib import import_module

    from ..tasks import LOSSES

    home, _, name = LOSSES[task.kind][task.loss].partition(".")
    return getattr(import_module(f"pycls.losses.{home}"), name)  # type: ignore[no-any-return]
