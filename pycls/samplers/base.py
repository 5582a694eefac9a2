"""An epoch's draw: made whole from seed and epoch, then cut among the processes, so that two of them never draw the same place.

There is no other state: who counts what has been trained on, and passes that over in the epoch's draw, goes on where he stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from prototxt.errors import TaskError

Array = np.ndarray[Any, Any]
Draw = Callable[..., Array]  # (labels, generator, epoch, size, **options) -> indices int64 [n]


class EpochSampler(Sampler[int]):
    """The indices of this process in an epoch; `len` is the same for every process. Made by `make_sampler`."""

    def __init__(self, draw: Draw, labels: Array, *, seed: int, rank: int, world: int, size: int | None, options: Mapping[str, Any]) -> None:
        if not 0 <= rank < world:
            raise TaskError(f"rank {rank} of {world} processes: ranks run from 0 to {world - 1}")
        if not len(labels):
            raise TaskError("a sampler needs samples; the list is empty")
        self.draw, self.labels, self.options = draw, labels, dict(options)
        self.seed, self.rank, self.world, self.size = seed, rank, world, size
        self.chunk = int(options.get("batch_size", 1))  # what must stay together when the processes share
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch = epoch

    def indices(self) -> Array:
        """The whole draw of the epoch, of all processes."""
        generator = np.random.default_rng([self.seed, self.epoch])
        return self.draw(self.labels, generator, epoch=self.epoch, size=self.size, **self.options)

    def own(self) -> Array:
        """The part of this process: every world-th sample, or batch; the last few that do not come out even are left for another epoch."""
        drawn = self.indices()
        rounds = len(drawn) // (self.chunk * self.world)
        if not rounds:
            raise TaskError(f"an epoch of {len(drawn)} samples does not fill a batch of {self.chunk} on each of {self.world} processes")
        return drawn[: rounds * self.chunk * self.world].reshape(rounds, self.world, self.chunk)[:, self.rank].reshape(-1)

    def __iter__(self) -> Iterator[int]:
        return iter(self.own().tolist())

    def __len__(self) -> int:
        return len(self.own())


def by_class(labels: Array) -> dict[int, Array]:
    """{class: its samples}, for the classes that have some; a missing label (-1) belongs to none."""
    if labels.ndim != 1:
        raise TaskError(f"this draw balances classes and needs one label a sample, not {list(labels.shape)}; repeat_factor takes several")
    found = {int(c): np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0}
    if not found:
        raise TaskError("no sample has a label to balance by")
    return found
