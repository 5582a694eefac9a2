"""Batches of images and labels: worker processes that decode and change, a plan of rows that neither their number nor a restart alters.

plan of an epoch   row ids of the whole world, drawn from (seed, epoch) alone; process r of w takes every w-th of them
a row of it        Key(row, epoch, position): an image that is drawn twice is changed in two ways
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from prototxt import DataError, FileProblem, LabelError

from ..augment import Augment, draw_seed, minority_rows
from ..distributed import World
from ..labels import LabelTable, class_counts
from ..tasks import Task
from .config import Config, ImageConfig
from .images import Array, load_image


class Key(NamedTuple):
    """A row of the table at a position of an epoch."""

    row: int
    epoch: int
    position: int


class Batch(NamedTuple):
    """uint8 images [N, C, H, W], targets and masks by task, rows [N] of the table; `broken` are the errors of rows that were left out."""

    images: Tensor
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]
    rows: Tensor
    broken: list[str]

    def __len__(self) -> int:
        return len(self.rows)


class Rows(Dataset[Any]):
    """The rows of a table as a dataset that makes whole batches. A broken image is an error with its line, or left out and said (`skip`)."""

    def __init__(self, table: LabelTable, image: ImageConfig, tasks: Sequence[Task], *, on_error: str = "stop", cache: bool = False) -> None:
        self.table, self.image, self.on_error = table, image, on_error
        self.targets = {task.name: torch.from_numpy(target(table, task)[0]) for task in tasks}
        self.masks = {task.name: torch.from_numpy(target(table, task)[1]) for task in tasks}
        self.augment: Augment | None = None
        self.stronger: Augment | None = None
        self.rare: Array | None = None
        self.seed = 0
        self._cache: Tensor | None = None
        self._bad: dict[int, str] = {}
        if cache:
            self._fill()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of these keys. Errors come as words in `broken`, since what a worker process raises arrives as a traceback."""
        if self._cache is not None and self.augment is None and not self._bad:
            rows = torch.tensor([key.row for key in keys])
            return self._batch(self._cache[rows], rows, [])
        images, kept, broken = list[Tensor](), list[int](), list[str]()
        for key in keys:
            try:
                images.append(self._changed(self.load(key.row), key))
                kept.append(key.row)
            except LabelError as exc:
                broken.append(str(exc))
        empty = torch.zeros((0, self.channels, self.image.height, self.image.width), dtype=torch.uint8)
        return self._batch(torch.stack(images) if images else empty, torch.tensor(kept, dtype=torch.int64), broken)

    def _batch(self, images: Tensor, rows: Tensor, broken: list[str]) -> Batch:
        return Batch(images, {n: t[rows] for n, t in self.targets.items()}, {n: m[rows] for n, m in self.masks.items()}, rows, broken)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.table.planes) or self.image.channels

    def load(self, row: int) -> Tensor:
        """The image of a row as uint8 [C, H, W]. LabelError with the row's line if it does not decode."""
        if row in self._bad:
            raise LabelError(self._bad[row])
        if self._cache is not None:
            return self._cache[row]
        try:
            return torch.from_numpy(load_image(self.table.files(row), self.image))
        except (DataError, FileProblem) as exc:
            raise LabelError(f"{self.table.places[row]}: {exc}") from exc

    def _changed(self, image: Tensor, key: Key) -> Tensor:
        if self.augment is None:
            return image
        rare = self.rare is not None and bool(self.rare[key.row])
        augment = self.stronger if rare and self.stronger is not None else self.augment
        return augment(image, draw_seed(self.seed, key.epoch, key.position)) if augment else image

    def _fill(self) -> None:
        """All images in one tensor, and the errors by row of those that do not decode."""
        made = torch.zeros((len(self.table), self.channels, self.image.height, self.image.width), dtype=torch.uint8)
        bad: dict[int, str] = {}
        for row in range(len(self.table)):
            try:
                made[row] = self.load(row)
            except LabelError as exc:
                if self.on_error == "stop":
                    raise
                bad[row] = str(exc)
        self._cache, self._bad = made, bad


def target(table: LabelTable, task: Task) -> tuple[Array, Array]:
    """Values and mask of a task; a table that does not have it has no label of it."""
    if task.name in table.values:
        return table.values[task.name], table.present[task.name]
    shape = (len(table), len(task.classes)) if task.kind == "multilabel" else (len(table),)
    return np.zeros(shape, dtype=np.int64 if task.kind == "multiclass" else np.float32), np.zeros(shape, dtype=bool)


def training_rows(config: Config, table: LabelTable, tasks: Sequence[Task]) -> Rows:
    """The rows of the training list with the config's augmentation."""
    rows = Rows(table, config.data.image, tasks, on_error=config.data.on_error, cache=config.data.cache)
    augment = Augment(config.augment, rows.channels)
    rows.seed = config.seed
    if augment:
        rows.augment = augment
        if config.augment.minority_only or config.augment.strength != 1:
            rows.rare = _rare(table, tasks, config.augment.minority)
            rows.stronger = Augment(config.augment, rows.channels, config.augment.strength)
        if config.augment.minority_only:
            rows.augment = Augment(type(config.augment)(), rows.channels)
    return rows


def _rare(table: LabelTable, tasks: Sequence[Task], share: float) -> Array:
    """Rows with a rare class of any task."""
    rare = np.zeros(len(table), dtype=bool)
    for task in tasks:
        if task.kind != "age":
            column = table.column(task.name)
            rare |= minority_rows(table.values[task.name], table.present[task.name], class_counts(table, column), share)
    return rare


Draw = Callable[[int], Array]  # epoch -> row ids of the whole world, in order


def batch_count(drawn: int, batch: int, world: World) -> int:
    """Batches of a training epoch that draws so many rows: it ends with the last full batch, unless it has none."""
    size = batch * world.size
    return max(drawn // size, 1)


def training_plan(draw: Draw, batch: int, world: World, epoch: int, start: int) -> Iterator[list[Key]]:
    """The keys of this process's batches, from number `start` of an epoch on, epoch after epoch without end."""
    while True:
        ids, size = draw(epoch), batch * world.size
        for number in range(start, batch_count(len(ids), batch, world)):
            first = number * size
            yield [Key(int(ids[i]), epoch, i) for i in range(first + world.rank, min(first + size, len(ids)), world.size)]
        epoch, start = epoch + 1, 0


def testing_plan(rows: int, batch: int, world: World) -> list[list[Key]]:
    """Every row once, over all processes; none is doubled to fill a batch."""
    mine = range(world.rank, rows, world.size)
    return [[Key(i, 0, i) for i in mine[first : first + batch]] for first in range(0, len(mine), batch)]


def batches(rows: Rows, plan: Iterable[list[Key]], workers: int, *, pin: bool = False) -> Iterator[Batch]:
    """The batches of a plan, decoded ahead by worker processes. LabelError for a broken image, unless the rows skip those."""
    made = DataLoader(
        rows,
        batch_sampler=_Planned(plan),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        worker_init_fn=_single_threaded,
        generator=torch.Generator().manual_seed(0),  # the global one is the training's
    )
    for batch in made:
        if batch.broken and rows.on_error == "stop":
            raise LabelError(batch.broken[0])
        yield batch


class _Planned(Sampler[list[Key]]):
    """A plan as a batch sampler."""

    def __init__(self, plan: Iterable[list[Key]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.plan)


def _as_it_is(batch: Any) -> Any:
    return batch


def _single_threaded(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, copied while the device works, where its memory is pinned."""
    if device.type == "cpu":
        return batch

    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

    return Batch(batch.images.to(device, non_blocking=True), moved(batch.targets), moved(batch.masks), batch.rows, batch.broken)
