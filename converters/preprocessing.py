"""What the files say of an input's preparation: mean, scale, channel order, crop. Caffe: x = (pixel - mean) * scale, B G R."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt import NetError
from prototxt.net import Net

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """`mean` has one value a channel in the net's own channel order, or is empty; `said_by` tells where each fact stands."""

    mean: tuple[float, ...] = ()
    mean_file: str = ""
    scale: float = 1.0
    channel_order: str = "BGR"
    crop: int = 0
    new_size: tuple[int, int] | None = None
    said_by: str = "Caffe's convention; the files do not say"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def formula(self) -> str:
        """One line for a person: `x = (pixel - [104, 117, 123]) * 0.017, channels B G R`."""
        mean = f" - {self.mean_file or [round(m, 4) for m in self.mean]}" if self.mean or self.mean_file else ""
        scale = f" * {self.scale:g}" if self.scale != 1 else ""
        order = f", channels {' '.join(self.channel_order)}" if self.channel_order in ("BGR", "RGB") else ""
        return f"x = {f'(pixel{mean})' if mean and scale else f'pixel{mean}'}{scale}{order}"

    def module(self) -> nn.Module:
        """RGB images [N, 3, H, W] of 0..255 -> what the net takes."""
        if self.mean_file and not self.mean:
            raise NetError(f"the mean stands in {self.mean_file!r}, which is not at hand; give --mean B,G,R")
        from .modules.preprocessing import Prepare

        return Prepare(self.mean or (0.0,), self.scale, self.channel_order == "BGR")


def declared(net: Net, *, channels: int = 3, mean: tuple[float, ...] = (), scale: float | None = None) -> Preprocessing:
    """What the net's data layers declare for an input of `channels`; `mean` and `scale` given by the caller win. NetError for what is none."""
    if len(mean) not in (0, 1, channels):
        raise NetError(f"--mean: {len(mean)} means for {channels} channels: one, or one for each")
    t, place = _transform(net)
    values: dict[str, Any] = {}
    if t is not None:
        values = {"scale": t.scale, "crop": t.crop_size, "mean": tuple(t.mean_value), "mean_file": t.mean_file, "said_by": place}
        if t.mean_file:
            values["mean"] = _mean_of(t.mean_file, net)
    if mean:
        values |= {"mean": mean, "mean_file": "", "said_by": "the caller"}
    if scale is not None:
        values |= {"scale": scale, "said_by": "the caller"}
    if channels != 3:
        values["channel_order"] = "grey" if channels == 1 else "as the net was trained"
    prepared = Preprocessing(**values)
    if not all(map(math.isfinite, (*prepared.mean, prepared.scale))):
        raise NetError(f"mean {list(prepared.mean)}, scale {prepared.scale} (from {prepared.said_by}): must be finite numbers")
    return prepared


def _transform(net: Net) -> tuple[Any, str]:
    for layer in net.layers:
        if layer.spec.has("transform_param"):
            return layer.spec.transform_param, f"layer {layer.name!r}, {layer.place}"
    return None, ""


def _mean_of(name: str, net: Net) -> tuple[float, ...]:
    """Channel means of a mean file, if it is at hand."""
    from prototxt.files import find_file

    folder = next((layer.folder for layer in net.layers if layer.folder), None)
    path = find_file(name, folder)
    return channel_means(path) if path.is_file() else ()


def channel_means(path: Path) -> tuple[float, ...]:
    """One mean a channel of a mean .binaryproto [1, C, H, W] or [C, H, W]."""
    from google.protobuf.message import DecodeError

    from prototxt.files import read_file
    from prototxt.schema import caffe_pb2

    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(read_file(path))
    except DecodeError as exc:
        raise NetError(f"{path}: no mean file: {exc}") from exc
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    channels = shape[-3] if len(shape) >= 3 else 0
    if channels < 1 or len(blob.data) % channels or not blob.data:
        raise NetError(f"{path}: a mean of shape {shape} with {len(blob.data)} values")
    import numpy as np

    return tuple(float(m) for m in np.array(blob.data, dtype=np.float32).reshape(channels, -1).mean(1, dtype=np.float64))
