"""Which rows an epoch draws: a sampler's draw over the training list, or one of each source, mixed so that every batch has its share of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from prototxt import ConfigError

from ..labels import LabelTable
from ..samplers import make_sampler
from ..tasks import Task
from .config import Config
from .images import Array
from .tables import Data

Draw = Callable[[int], Array]  # epoch -> row ids of the whole world, in order


def drawing(config: Config, data: Data) -> Draw:
    """The draw of a config: from the seed and the epoch alone."""
    if config.data.sources and config.data.mixing != "proportional":
        return lru_cache(maxsize=2)(_mixed(config, data))
    return lru_cache(maxsize=2)(_sampled(config, data, np.arange(len(data.train)), config.seed))


def _sampled(config: Config, data: Data, rows: Array, seed: int) -> Draw:
    """The draw of the config's sampler over some rows of the table."""
    chosen = config.train.sampler
    options = dict(chosen.options)
    if chosen.name == "progressive":
        options.setdefault("epochs", config.train.epochs)
    if chosen.name == "m_per_class":
        options.setdefault("batch_size", config.data.batch)
    sampler = make_sampler(chosen.name, _labels(config, data, rows), seed=seed, **options)

    def draw(epoch: int) -> Array:
        sampler.set_epoch(epoch)
        return rows[sampler.indices()]

    return draw


def _labels(config: Config, data: Data, rows: Array) -> Array:
    """What the sampler balances: classes [N] with -1 for NA, or labels [N, K] with nan."""
    name = config.train.sampler.task or data.tasks[0].name
    task = next((t for t in data.tasks if t.name == name), None)
    if task is None:
        raise ConfigError(f"train.sampler.task is {name!r}; the tasks are {', '.join(t.name for t in data.tasks)}")
    if config.train.sampler.name == "instance":
        return np.zeros(len(rows), dtype=np.int64)
    return balanced_labels(data.train, task)[rows]


def balanced_labels(table: LabelTable, task: Task) -> Array:
    """Labels of a task as the samplers take them; ConfigError for an age, whose years are no classes."""
    values, present = table.values[task.name], table.present[task.name]
    if task.kind == "age":
        raise ConfigError(f"train.sampler: {task.name!r} is an age; name another task to balance")
    if task.kind == "multilabel":
        return np.where(present, values, np.nan)
    return np.where(present, values.astype(np.int64), -1)


def shares(config: Config, sizes: Sequence[int]) -> Array:
    """The part of a batch that each source gets."""
    if config.data.mixing == "shares":
        raw = np.array([source.share for source in config.data.sources])
    else:
        raw = np.array(sizes, dtype=np.float64) ** config.data.temperature
    return raw / raw.sum()


def _mixed(config: Config, data: Data) -> Draw:
    """An epoch of as many rows as all sources have, each batch composed by the shares; a source that runs out begins again."""
    names = [source.name or source.labels for source in config.data.sources]
    parts = [np.flatnonzero(data.train.notes["source"] == name) for name in names]
    draws = [_sampled(config, data, part, config.seed + i) for i, part in enumerate(parts)]
    part_of = shares(config, [len(part) for part in parts])

    def draw(epoch: int) -> Array:
        batches = max(len(data.train) // config.data.batch, 1)
        quotas = _quotas(part_of, config.data.batch, batches)
        streams = [_stream(d, epoch, int(total)) for d, total in zip(draws, quotas.sum(0), strict=True)]
        generator, at, mixed = np.random.default_rng([config.seed, epoch]), np.zeros(len(parts), dtype=int), []
        for quota in quotas:
            batch = np.concatenate([stream[a : a + n] for stream, a, n in zip(streams, at, quota, strict=True)])
            mixed.append(generator.permutation(batch))
            at += quota
        return np.concatenate(mixed)

    return draw


def _quotas(part: Array, batch: int, batches: int) -> Array:
    """Rows of each source in each batch [batches, sources]: whole numbers that add up to the batch, and to the shares over the epoch."""
    wanted = np.arange(1, batches + 1)[:, None] * part * batch
    edges = np.floor(np.cumsum(wanted, axis=1) + 1e-9).astype(int)
    edges[:, -1] = np.arange(1, batches + 1) * batch
    totals = np.diff(np.concatenate([np.zeros((1, len(part)), dtype=int), np.diff(edges, axis=1, prepend=0)]), axis=0)
    return np.maximum(totals, 0)


def _stream(draw: Draw, epoch: int, count: int) -> Array:
    """So many rows of a source, of as many of its epochs as that takes."""
    drawn: list[Any] = []
    while sum(map(len, drawn)) < count:
        drawn.append(draw(epoch + (len(drawn) << 20)))
    return np.concatenate(drawn)[:count] if drawn else np.zeros(0, dtype=np.int64)
