"""What the data layers of a net give, one forward pass after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, DecantError, NetError, UnsupportedLayer
from ..net import Layer, Net, read_net
from ..rules import State
from . import followers
from .feeds import FEEDS, DummyFeed, Feed, MemoryFeed, WindowFeed
from .hdf5 import write_batch
from .paths import Paths

Array = np.ndarray[Any, Any]


def batches(
    net: str | Path | Net,
    phase: str = "TEST",
    *,
    stages: Sequence[str] = (),
    level: int = 0,
    seed: int = 0,
    arrays: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
) -> Batches:
    """An endless iterator of {top: array}, one dict a forward pass of the net's data layers.

    `arrays` are what MemoryData layers read, by top. `seed` determines crops, mirrors, shuffles and fillers. `root` confines the files that
    are read. Errors name the layer, the file and the record.
    """
    if not isinstance(net, Net):
        net = read_net(net, State(phase, level, tuple(stages)))
    return Batches(net, seed=seed, arrays=arrays or {}, root=Path(root) if root is not None else None)


class Batches:
    """The iterator. `records` tells the numbers of the records in the last batch by layer; `state` and `restore` carry on exactly.

    `share` is (rank, of how many) where several processes take turns in the records.
    """

    def __init__(
        self,
        net: Net,
        *,
        seed: int = 0,
        arrays: Mapping[str, Any] | None = None,
        root: Path | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.net, self.root = net, root
        self.feeds = [_feed(layer, [seed, i], arrays or {}, root, share) for i, layer in enumerate(net.layers) if _is_data(layer)]
        if not self.feeds:
            raise NetError(f"the net {net.name!r} has no data layer in phase {net.state.phase}; its inputs are yours to give")
        fed = {top: feed.layer.type for feed in self.feeds for top in feed.layer.tops}
        self._followers = followers.needed(net, fed)
        self._written: set[str] = set()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Array]:
        return self.follow(self.make(self.plan()))

    @property
    def planned(self) -> bool:
        """Whether all its data layers plan a batch before they read it, so that other processes can make it."""
        return all(feed.planned for feed in self.feeds)

    def plan(self) -> list[Any]:
        """The next batch as a plan for each data layer; they have moved on after it."""
        return [with_place(feed.layer, feed.plan) for feed in self.feeds]

    def make(self, plans: Sequence[Any]) -> dict[str, Array]:
        """The tops of the data layers for a plan; changes nothing."""
        blobs: dict[str, Array] = {}
        for feed, plan in zip(self.feeds, plans, strict=True):
            blobs.update(with_place(feed.layer, lambda feed=feed, plan=plan: feed.make(plan)))
        return blobs

    def follow(self, blobs: dict[str, Array]) -> dict[str, Array]:
        """Run the layers behind the data layers that are run here: HDF5Output, and what writes into DummyData in place."""
        for layer in self._followers:
            if layer.type == "HDF5Output":
                with_place(layer, lambda layer=layer: self._write(layer, blobs))
            elif followers.run(layer, blobs):
                self._keep(layer, blobs)
        return blobs

    @property
    def records(self) -> dict[str, Sequence[int]]:
        """The numbers of the records in the last batch, by the layer's name."""
        return {feed.layer.name: feed.records for feed in self.feeds}

    def state(self) -> list[dict[str, Any]]:
        """Where each data layer stands, as plain numbers: what `json` writes and reads."""
        return [feed.state() for feed in self.feeds]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from `state`. DataError if it is of another net."""
        if len(state) != len(self.feeds):
            raise DataError(f"the state is of {len(state)} data layers, this net has {len(self.feeds)}")
        try:
            for feed, one in zip(self.feeds, state, strict=True):
                feed.restore(one)
        except (KeyError, TypeError, ValueError) as exc:
            raise DataError(f"the state does not fit the data layers of this net: {exc}") from exc

    def _keep(self, layer: Layer, blobs: dict[str, Array]) -> None:
        """A constant blob of DummyData keeps what was written into it in place."""
        for feed in self.feeds:
            if isinstance(feed, DummyFeed) and layer.bottoms == layer.tops and layer.tops[0] in feed.constants:
                feed.constants[layer.tops[0]] = blobs[layer.tops[0]].copy()

    def _write(self, layer: Layer, blobs: dict[str, Array]) -> None:
        """HDF5Output: one batch, and no second, as in Caffe."""
        if len(layer.bottoms) != 2:
            raise NetError(f"has {len(layer.bottoms)} bottoms; HDF5Output writes two, data and label")
        if any(bottom not in blobs for bottom in layer.bottoms):
            return  # it hangs on layers that are run elsewhere
        path = Paths(None, self.root).inside(Path(layer.spec.hdf5_output_param.file_name))
        if layer.place in self._written:
            raise DataError(f"{path}: HDF5Output writes one batch to its file and fails at the second; run one pass, or raise batch_size")
        write_batch(path, blobs[layer.bottoms[0]], blobs[layer.bottoms[1]])
        self._written.add(layer.place)


def _is_data(layer: Layer) -> bool:
    if layer.type in FEEDS:
        return True
    if not layer.bottoms and layer.tops and layer.type not in ("Input", "Parameter"):
        raise UnsupportedLayer(f"{layer}: brings in data in a way that BVLC Caffe has not; known are {', '.join(sorted(FEEDS))}")
    return False


def _feed(layer: Layer, seed: Sequence[int], arrays: Mapping[str, Any], root: Path | None, share: tuple[int, int]) -> Feed:
    paths = Paths(layer.folder, root)
    more = (arrays,) if FEEDS[layer.type] is MemoryFeed else ()
    drawn = FEEDS[layer.type] in (DummyFeed, WindowFeed)  # these have no records to take turns in: each process draws its own
    seed = [*seed, share[0]] if drawn and share[0] else seed
    feed: Feed = with_place(layer, lambda: FEEDS[layer.type](layer, seed, paths, *more))
    feed.share = share
    return feed


def with_place(layer: Layer, action: Any) -> Any:
    """Run `action`; its errors name the layer."""
    try:
        return action()
    except DecantError as exc:
        raise type(exc)(f"{layer}: {exc}") from exc
