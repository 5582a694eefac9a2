"""What brings batches to a solver: the data layers of its net, read ahead by a thread or by worker processes, or any torch DataLoader.

All feeds can tell where they stand (`state`, plain values for JSON), as of the last batch that was handed out, and go on from there (`restore`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prototxt import DataError, DecantError, FileProblem
from prototxt.data import Batches

AHEAD = 2  # batches that are read ahead


class Batch(NamedTuple):
    """Tensors by blob, still on the CPU, and the records that they come from, by layer, as far as they are known."""

    blobs: dict[str, Tensor]
    records: Mapping[str, Sequence[int]]


class Feed(ABC):
    """Batches, one after the other. `waited` are the seconds that `next` has taken so far: what training lost to reading."""

    waited = 0.0

    def next(self) -> Batch:
        """The next batch."""
        start = time.perf_counter()
        batch = self._next()
        self.waited += time.perf_counter() - start
        return batch

    @abstractmethod
    def _next(self) -> Batch: ...

    @abstractmethod
    def state(self) -> Any:
        """Where it stands behind the last batch, as JSON can write it."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Go on from a state. DataError if it is another feed's."""


class NoFeed(Feed):
    """For a net that makes all its blobs itself."""

    def _next(self) -> Batch:
        return Batch({}, {})

    def state(self) -> Any:
        """Nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Nothing."""


class LayerFeed(Feed):
    """The data layers of a net. `finish` is applied to each batch where it is read: it checks, pins, changes the layout.

    Without workers a thread reads ahead. With workers, processes read and transform what the thread has planned; only records can be planned
    (Data and ImageData), so the other data layers refuse workers.
    """

    def __init__(self, batches: Batches, finish: Callable[[Batch], Batch], workers: int = 0) -> None:
        if workers and not batches.planned:
            types = ", ".join(sorted({feed.layer.type for feed in batches.feeds if not feed.planned}))
            raise DataError(f"--workers {workers}: worker processes read Data and ImageData layers; {types} is read by a thread: leave --workers out")
        self._batches, self._finish, self._workers = batches, finish, workers
        self._state = batches.state()
        self._ahead: _Ahead | None = None

    def _next(self) -> Batch:
        if self._ahead is None:
            self._ahead = _Ahead(_planned(self._batches, self._finish, self._workers) if self._workers else _read(self._batches, self._finish))
        batch, self._state = self._ahead.next()
        return batch

    def state(self) -> Any:
        """Positions, rounds and generators of the data layers."""
        return self._state

    def restore(self, state: Any) -> None:
        """What was read ahead is forgotten."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None
        self._batches.restore(state)
        self._state = self._batches.state()


def _read(batches: Batches, finish: Callable[[Batch], Batch]) -> Iterator[tuple[Batch, Any]]:
    while True:
        blobs = tensors(next(batches))
        yield finish(Batch(blobs, batches.records)), batches.state()


def _planned(batches: Batches, finish: Callable[[Batch], Batch], workers: int) -> Iterator[tuple[Batch, Any]]:
    from torch.utils.data import DataLoader

    behind: deque[tuple[Mapping[str, Sequence[int]], Any]] = deque()

    def plans() -> Iterator[Any]:
        while True:
            plan = batches.plan()
            behind.append((batches.records, batches.state()))
            yield plan

    loader = DataLoader(
        _Made(batches),
        batch_size=None,
        sampler=plans(),  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_tensors,
        generator=torch.Generator(),  # or it would draw from the one that the net draws from
    )
    for blobs in loader:
        if isinstance(blobs, DecantError):
            raise blobs
        records, state = behind.popleft()
        yield finish(Batch(blobs, records)), state


class _Made(torch.utils.data.Dataset[Any]):
    """A plan -> its batch, as torch's workers want it; or the error, as a value: what a worker process raises arrives as a traceback."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, plan: Any) -> dict[str, Any] | DecantError:
        try:
            return self.batches.follow(self.batches.make(plan))
        except (DataError, FileProblem) as exc:
            return exc


def _as_tensors(made: Any) -> Any:
    return made if isinstance(made, DecantError) else tensors(made)


def tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """{top: array} as tensors over the same memory."""
    return {top: torch.from_numpy(np.asarray(array, np.float32)) for top, array in arrays.items()}


class _Ahead:
    """A thread that keeps AHEAD items of an iterator ready. Its errors come out of `next`; it ends with the object."""

    def __init__(self, items: Iterator[tuple[Batch, Any]]) -> None:
        self._queue: queue.Queue[tuple[Batch, Any] | BaseException] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=_work, args=(items, self._queue, self._stopped), name="decant-feed", daemon=True)
        self._thread.start()
        self.stop = weakref.finalize(self, _stop, self._queue, self._stopped, self._thread)  # at the latest when Python ends

    def next(self) -> tuple[Batch, Any]:
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # whoever asks again gets it again
            raise item
        return item


def _work(items: Iterator[tuple[Batch, Any]], out: queue.Queue[Any], stopped: threading.Event) -> None:
    try:
        for item in items:
            out.put(item)
            if stopped.is_set():
                return
    except Exception as exc:
        if not stopped.is_set():
            out.put(exc)


def _stop(waiting: queue.Queue[Any], stopped: threading.Event, thread: threading.Thread) -> None:
    """End the thread, and wait for it."""
    stopped.set()
    while thread.is_alive():
        with contextlib.suppress(queue.Empty):
            waiting.get(timeout=0.01)  # it may be waiting for room
    thread.join()


class LoaderFeed(Feed):
    """Any iterable of batches, a torch DataLoader say, again and again. A batch is {blob: tensor}, or tensors in the order of `blobs`.

    A loader with state_dict and load_state_dict (torchdata's StatefulDataLoader) is asked where it stands. Any other goes on exactly if its
    order depends on torch's generators alone: its epoch is begun with the same generator, and the batches that were seen are passed over.
    """

    def __init__(self, loader: Iterable[Any], blobs: Sequence[str], finish: Callable[[Batch], Batch]) -> None:
        self.loader, self.blobs, self._finish = loader, tuple(blobs), finish
        self.epoch = self.seen = 0
        self._begun = torch.empty(0, dtype=torch.uint8)
        self._iterator: Iterator[Any] | None = None

    def _next(self) -> Batch:
        for _ in range(2):
            if self._iterator is None:
                self._begin()
            assert self._iterator is not None
            item = next(self._iterator, None)
            if item is not None:
                self.seen += 1
                return self._finish(Batch(self._named(item), {}))
            self._iterator, self.epoch, self.seen = None, self.epoch + 1, 0
        raise DataError("the loader is empty: it gave no batch in a whole epoch")

    def _begin(self) -> None:
        set_epoch = getattr(getattr(self.loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:  # torch's DistributedSampler
            set_epoch(self.epoch)
        self._begun = self._generator().get_state()
        self._iterator = iter(self.loader)

    def _generator(self) -> torch.Generator:
        return getattr(self.loader, "generator", None) or torch.default_generator

    def _named(self, item: Any) -> dict[str, Tensor]:
        if isinstance(item, Mapping):
            return {name: torch.as_tensor(value) for name, value in item.items()}
        parts = [item] if isinstance(item, Tensor) else list(item)
        if len(parts) != len(self.blobs):
            raise DataError(f"the loader gives {len(parts)} tensors a batch, and the net reads {len(self.blobs)}: {', '.join(self.blobs)}")
        return dict(zip(self.blobs, map(torch.as_tensor, parts), strict=True))

    def state(self) -> Any:
        """Epoch, batches seen in it, and the generator's state at its beginning; or what the loader itself tells."""
        own = self.loader.state_dict() if hasattr(self.loader, "state_dict") else None
        return {"epoch": self.epoch, "seen": self.seen, "begun": self._begun.tolist(), "loader": own}

    def restore(self, state: Any) -> None:
        """Begin the epoch again, and pass over what was seen."""
        try:
            self.epoch, self.seen, begun = int(state["epoch"]), int(state["seen"]), torch.tensor(state["begun"], dtype=torch.uint8)
            self._iterator = None
            if state["loader"] is not None and hasattr(self.loader, "load_state_dict"):
                self.loader.load_state_dict(state["loader"])
                self._begin()
            elif self.seen:
                self._generator().set_state(begun)
                self._begin()
                for _ in range(self.seen):
                    next(self._iterator)  # type: ignore[call-overload]
        except (KeyError, TypeError, ValueError, RuntimeError, StopIteration) as exc:
            raise DataError(f"the state does not fit this loader: {exc}") from exc
