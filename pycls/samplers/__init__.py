"""Which samples an epoch draws, and in which order: by seed and epoch, the same on every process, cut among them afterwards.

sampler = make_sampler("sqrt", classes, seed=0, rank=rank, world=world)       classes int [N]; -1 is a missing label
for epoch in range(epochs):
    sampler.set_epoch(epoch)
    for batch in DataLoader(data, sampler=sampler, ...): ...

instance         every sample once, shuffled
class_balanced   a class with probability 1 / C, then a sample of it
sqrt             a class with probability ~ sqrt(n)
progressive      from instance in the first epoch to class_balanced in the last
under            as many of each class as the rarest has, another subset each epoch
over             each class repeated to the size of the largest; every sample at least once
repeat_factor    a sample as often as its rarest label asks for; labels [N, K]
class_aware      classes in turn, and the samples of a class in turn
m_per_class      batches of m samples of each of some classes: for pairs and triplets
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..tasks import check_options, one_of
from .balanced import class_balanced, progressive, sqrt
from .base import Draw, EpochSampler
from .per_class import class_aware, m_per_class
from .repeat_factor import repeat_factor
from .resample import instance, over, under

DRAWS: dict[str, Draw] = {
    draw.__name__: draw for draw in (class_aware, class_balanced, instance, m_per_class, over, progressive, repeat_factor, sqrt, under)
}


def make_sampler(name: str, labels: Any, *, seed: int = 0, rank: int = 0, world: int = 1, size: int | None = None, **options: Any) -> EpochSampler:
    """A sampler by name over samples with these labels: int [N] classes, -1 missing; or 0/1 [N, K] for repeat_factor, nan missing.

    `size` is how many an epoch draws, where the draw leaves it open; options go to the draw (epochs, threshold, m, batch_size).
    TaskError if it cannot draw from these labels.
    """
    check_sampler(name, options)
    return EpochSampler(DRAWS[name], np.asarray(labels), seed=seed, rank=rank, world=world, size=size, options=options)


def check_sampler(name: str, options: Mapping[str, Any]) -> None:
    """TaskError unless there is the sampler, and it takes these options."""
    one_of(name, DRAWS, "the sampler")
    check_options(DRAWS[name], options, f"the sampler {name!r}", given=("epoch", "size"))


def drawn_counts(sampler: EpochSampler, labels: Any) -> np.ndarray[Any, Any]:
    """How often each class [C], or each label [K], comes in one epoch of all processes: with several labels resampling balances only so far."""
    labels = np.asarray(labels)
    picked = labels[sampler.indices()]
    if labels.ndim > 1:
        return np.nansum(picked, axis=0).astype(np.int64)
    return np.bincount(picked[picked >= 0], minlength=int(labels.max()) + 1)
