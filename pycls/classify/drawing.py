"""Which rows an epoch draws: a sampler's draw over the training list, or one of each source, mixed so that every batch has its share of each.

A branch with a sampler of its own has a stream of its own beside the main one: as many rows an epoch, cut into batches and among processes the
same way, so that one position in the epoch says where all streams are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from prototxt import ConfigError

from ..labels import LabelTable
from ..samplers import check_sampler, make_sampler
from ..tasks import Task
from .config import Config, SamplerConfig
from .feed import Draw
from .images import Array
from .tables import Data

Sampled = Callable[[int, int | None], Array]  # epoch, and how many rows where the sampler leaves that open -> row ids


@dataclass(frozen=True, slots=True)
class Stream:
    """Batches of one draw, and the tasks that learn from them."""

    tasks: tuple[Task, ...]
    draw: Draw


def streams(config: Config, data: Data, main: Draw) -> tuple[Stream, ...]:
    """The main stream, of the tasks without a sampler of their own, if there are some; and one for each branch that has one."""
    own = [(branch.tasks, branch.sampler) for branch in config.model.branches if branch.sampler is not None]
    left = tuple(task for task in data.tasks if not any(task.name in names for names, _ in own))
    made = [Stream(left, main)] if left else []
    for i, (names, sampler) in enumerate(own, 1):
        chosen = sampler if sampler.task else replace(sampler, task=names[0])
        sampled = _sampled(config, data, chosen, np.arange(len(data.train)), config.seed + (i << 32))
        made.append(Stream(tuple(task for task in data.tasks if task.name in names), _beside(main, sampled)))
    return tuple(made)


def _beside(main: Draw, sampled: Sampled) -> Draw:
    """A draw as long as the main one in every epoch."""
    return lru_cache(maxsize=2)(lambda epoch: _stream(sampled, epoch, len(main(epoch))))


def drawing(config: Config, data: Data) -> Draw:
    """The draw of a config: from the seed and the epoch alone."""
    if config.data.sources and config.data.mixing != "proportional":
        return lru_cache(maxsize=2)(_mixed(config, data))
    sampled = _sampled(config, data, config.train.sampler, np.arange(len(data.train)), config.seed)
    return lru_cache(maxsize=2)(lambda epoch: sampled(epoch, None))


def _sampled(config: Config, data: Data, chosen: SamplerConfig, rows: Array, seed: int) -> Sampled:
    """The draw of a sampler over some rows of the table."""
    options = dict(chosen.options)
    if chosen.name == "progressive":
        options.setdefault("epochs", config.train.epochs)
    if chosen.name == "m_per_class":
        options.setdefault("batch_size", config.data.batch)
    check_sampler(chosen.name, options)  # before an option can stand for the seed
    sampler = make_sampler(chosen.name, _labels(chosen, data, rows), seed=seed, **options)

    def draw(epoch: int, size: int | None) -> Array:
        sampler.set_epoch(epoch)
        sampler.size = size
        return rows[sampler.indices()]

    return draw


def _labels(chosen: SamplerConfig, data: Data, rows: Array) -> Array:
    """What the sampler balances: classes [N] with -1 for NA, or labels [N, K] with nan."""
    name = chosen.task or data.tasks[0].name
    task = next((t for t in data.tasks if t.name == name), None)
    if task is None:
        raise ConfigError(f"a sampler's task is {name!r}; the tasks are {', '.join(t.name for t in data.tasks)}")
    if chosen.name == "instance":
        return np.zeros(len(rows), dtype=np.int64)
    return balanced_labels(data.train, task)[rows]


def balanced_labels(table: LabelTable, task: Task) -> Array:
    """Labels of a task as the samplers take them; ConfigError for an age, whose years are no classes."""
    values, present = table.values[task.name], table.present[task.name]
    if task.kind == "age":
        raise ConfigError(f"a sampler balances classes: {task.name!r} is an age; name another task to balance")
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
    draws = [_sampled(config, data, config.train.sampler, part, config.seed + i) for i, part in enumerate(parts)]
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


def _stream(draw: Sampled, epoch: int, count: int) -> Array:
    """So many rows of a draw, of as many of its epochs as that takes."""
    drawn: list[Any] = []
    while sum(map(len, drawn)) < count:
        drawn.append(draw(epoch + (len(drawn) << 20), count))
    return np.concatenate(drawn)[:count] if drawn else np.zeros(0, dtype=np.int64)
