"""Caffe's data layers as torch datasets: LMDB, LevelDB, HDF5 and lists of images, transformed as Caffe does, by worker processes.

    for batch in loader("train_val.prototxt", "TRAIN", workers=4, seed=1):
        net.blobs(batch)                                  {top: tensor [N, ...]}

What is random about a record (crop, mirror) is drawn from (seed, epoch, record), and an epoch's order from (seed, epoch): so batches do not depend
on the number of workers, and a run that starts at a later epoch sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from prototxt import DataError
from prototxt.data import samples
from prototxt.net import Net


class LayerDataset(Dataset[dict[str, Tensor]]):
    """The records of a net's data layer: `dataset[i]` -> {top: float32 tensor}. Its `epoch` reaches worker processes too.

    `columns` reads an image list with several labels a line, which become a label top of [K]: True for as many as the first line has.
    """

    def __init__(
        self,
        net: str | Path | Net,
        phase: str = "TRAIN",
        *,
        layer: str | None = None,
        stages: Sequence[str] = (),
        level: int = 0,
        seed: int = 0,
        root: str | Path | None = None,
        columns: bool | int = False,
    ) -> None:
        self._samples = samples(net, phase, layer=layer, stages=stages, level=level, seed=seed, root=root, columns=columns)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Which epoch's crops and mirrors records have."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch.fill_(value)

    @property
    def batch_size(self) -> int:
        """The layer's own."""
        return self._samples.batch_size

    @property
    def shuffled(self) -> bool:
        """Whether the layer asks for a random order."""
        return self._samples.shuffled

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self._samples.epoch = self.epoch
        return {top: torch.as_tensor(value) for top, value in self._samples[index].items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A whole batch, read and transformed in one go; what a DataLoader asks for if it can."""
        self._samples.epoch = self.epoch
        return {top: torch.from_numpy(value) for top, value in self._samples.batch(indices).items()}


class EpochSampler(Sampler[int]):
    """All records once an epoch, in order, or in a random one that (seed, epoch) determines."""

    def __init__(self, dataset: LayerDataset, *, shuffle: bool, seed: int) -> None:
        self.dataset, self.shuffle, self.seed = dataset, shuffle, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(len(self)))
        generator = torch.Generator().manual_seed((self.seed << 20) + self.dataset.epoch)
        return iter(torch.randperm(len(self), generator=generator).tolist())


class Loader:
    """Batches {top: tensor [N, ...]} of one epoch after the other: each iteration over it is an epoch. `epoch` may be set, to go on from there."""

    def __init__(self, dataset: LayerDataset, batches: DataLoader[dict[str, Tensor]]) -> None:
        self.dataset, self._batches = dataset, batches
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.dataset.epoch = self.epoch
        self.epoch += 1
        if self._batches.num_workers or self._batches.pin_memory:
            return iter(self._batches)
        return map(self.dataset.__getitems__, self._batches.batch_sampler or ())  # the same, without the loader's bookkeeping


def loader(
    net: str | Path | Net,
    phase: str = "TRAIN",
    *,
    workers: int = 0,
    batch_size: int | None = None,
    shuffle: bool | None = None,
    drop_last: bool = False,
    pin_memory: bool = False,
    layer: str | None = None,
    stages: Sequence[str] = (),
    level: int = 0,
    seed: int = 0,
    root: str | Path | None = None,
    columns: bool | int = False,
) -> Loader:
    """A net's data layer as batches. Batch size and order are the layer's own unless given; Caffe's batches run on over the end, these do not."""
    dataset = LayerDataset(net, phase, layer=layer, stages=stages, level=level, seed=seed, root=root, columns=columns)
    size = dataset.batch_size if batch_size is None else batch_size
    if size < 1:
        raise DataError(f"a batch size of {size}: it must be above 0")
    order = EpochSampler(dataset, shuffle=dataset.shuffled if shuffle is None else shuffle, seed=seed)
    batches: DataLoader[dict[str, Tensor]] = DataLoader(
        dataset,
        batch_size=size,
        sampler=order,
        num_workers=workers,
        collate_fn=_whole,  # the batch is one already
        drop_last=drop_last,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
    return Loader(dataset, batches)


def _whole(batch: Any) -> Any:
    return batch
