"""What a runner is: a net in one framework, with a name, that takes a feed {input: array} to blobs {name: array} in the net's order.

A runner that cannot run here raises Unavailable, with the reason in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from prototxt import DecantError

from ..results import Side

Array = np.ndarray[Any, Any]
BUDGET = 512 << 20  # bytes of blobs that a runner which cannot stream holds at a time


class Unavailable(DecantError):
    """A framework that is not here, or that does not take the net."""


class Stopped(Unavailable):
    """A pass that failed half-way; `found` are the blobs up to there."""

    def __init__(self, message: str, found: dict[str, Array]) -> None:
        super().__init__(message)
        self.found = found


class Runner:
    """One net in one framework.

    `inputs` and `outputs` are blob names; `inner` are all blobs that it can show, outputs included, in the order in which they are made.
    """

    side: Side
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    recorded = False  # whether it is a run of another day, which takes no feed

    @property
    def name(self) -> str:
        """The runner's name for a person."""
        return self.side.name

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by blob name."""
        return self.some(feed, self.outputs)

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        raise NotImplementedError

    def stream(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> Iterator[tuple[str, Array]]:
        """(name, blob) of those `wanted`, so that few are held at a time: here by as many passes as the budget asks for."""
        for part in parts(wanted, lambda name: self.bytes_of(name, feed)):
            stopped = None
            try:
                found = self.some(feed, part)
            except Stopped as exc:
                found, stopped = exc.found, exc
            for name in part:
                if name in found:
                    yield name, found.pop(name)
            if stopped:
                raise stopped

    def bytes_of(self, name: str, feed: Mapping[str, Array]) -> int:
        """The bytes of a blob, or a guess."""
        return 1 << 20

    def gradients(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """{layer/index: gradient} of the parameters after one backward pass of the net's objective (see `gradients.py`)."""
        raise Unavailable(f"{self.name} gives no gradients")


def as_far_as_it_goes(runner: Runner, feed: Mapping[str, Array], wanted: Sequence[str], stopped: list[str]) -> Iterator[tuple[str, Any]]:
    """The stream of a runner. A port with one wrong shape often dies some layers behind: then what came before it still tells why.

    `stopped` are the passes that have died so; the first of which nothing came raises Unavailable.
    """
    any_came = False
    try:
        for item in runner.stream(feed, wanted):
            any_came = True
            yield item
    except Unavailable as exc:
        if not any_came and not stopped:
            raise
        stopped.append(f"the pass stops: {exc}")


def parts(wanted: Iterable[str], size: Any) -> Iterator[list[str]]:
    """`wanted` in pieces within the budget, each of one name at least."""
    part: list[str] = []
    total = 0
    for name in wanted:
        total += size(name)
        if part and total > BUDGET:
            yield part
            part, total = [], size(name)
        part.append(name)
    if part:
        yield part


def bytes_by_shape(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Bytes of float32 blobs."""
    return {name: 4 * prod(shape) for name, shape in shapes.items()}


def first_line(exc: BaseException) -> str:
    """What an exception says, in one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]
