"""Weights with the layers that they belong to: a .caffemodel or .caffemodel.h5 read, changed and written again, without a module.

A .caffemodel carries its net, upgraded here as Caffe's upgrade_net_proto_binary does; an HDF5 file has names alone, unless a net is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .binary import read_definition
from .errors import WeightsError
from .files import atomic_path
from .message import Message, new
from .net import Net
from .upgrade import upgrade
from .weights import LayerBlobs, Weights, read_weights
from .wire import Blob
from .write_weights import write_caffemodel

Array = np.ndarray[Any, Any]
IMAGE_WEIGHTS = ("Convolution", "Deconvolution")  # whose weights have four axes


@dataclass(frozen=True, slots=True)
class ModelLayer:
    """A layer and its blobs; of an HDF5 file's layer only the name is known."""

    spec: Message
    blobs: tuple[Blob, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.spec.name)


@dataclass(frozen=True, slots=True)
class Model:
    """Layers with weights, in order. `head` are the net's own fields: its name, its state."""

    path: Path
    head: Message
    layers: tuple[ModelLayer, ...]

    @property
    def carries_net(self) -> bool:
        """Whether the layers have types and bottoms."""
        return any(layer.spec.type for layer in self.layers)


def read_model(path: str | Path, net: Net | None = None, names: Mapping[str, str] | None = None) -> Model:
    """The weights of a .caffemodel or .h5, with the layers of `net` in its order, or else with those that the file carries.

    `names` gives layers of the file another name first. WeightsError for a name that none has, and for a blob that another layer holds where no
    net says which.
    """
    weights = _renamed(read_weights(path), names or {})
    if net is not None:
        head = new("NetParameter", name=net.name or None, force_backward=net.force_backward or None)
        specs = [layer.spec for layer in net.layers]
        found = {layer.name: layer for layer in weights}  # a layer twice in the file: the last counts
        return Model(Path(path), head, tuple(_layer(spec, found.get(spec.name), weights, specs) for spec in specs))
    if weights.hdf5:
        return Model(Path(path), new("NetParameter"), tuple(_layer(new("LayerParameter", name=w.name), w, weights, []) for w in weights))
    message = _renamed_layers(upgrade(read_definition(path)), names or {})
    head = message.copy()
    head.values.pop("layer", None)
    waiting: dict[str, list[LayerBlobs]] = {}
    for layer in weights:
        waiting.setdefault(layer.name, []).append(layer)
    layers = []
    for spec in message.layer:
        queue = waiting.get(spec.name)
        layers.append(_layer(spec, queue.pop(0) if queue else None, weights, []))
    return Model(Path(path), head, tuple(layers))


def _renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    unknown = [old for old in names if old not in {layer.name for layer in weights}]
    if unknown:
        raise WeightsError(f"{weights.path}: has no layer {unknown[0]!r} to rename; it has {_some([layer.name for layer in weights])}")
    layers = tuple(replace(layer, name=names.get(layer.name, layer.name)) for layer in weights)
    return replace(weights, layers=layers, shared=frozenset((names.get(name, name), i) for name, i in weights.shared))


def _renamed_layers(net: Message, names: Mapping[str, str]) -> Message:
    renamed, layers = net.copy(), [layer.copy() for layer in net.layer]
    for layer in layers:
        if layer.name in names:
            layer.values["name"] = names[layer.name]
    renamed.values["layer"] = layers
    return renamed


def _layer(spec: Message, stored: LayerBlobs | None, weights: Weights, specs: Sequence[Message]) -> ModelLayer:
    if stored is None:
        return ModelLayer(spec)
    blobs = list(stored.blobs)
    for i in range(len(blobs)):
        if (stored.name, i) in weights.shared:
            blobs[i] = _owners(spec, i, weights, specs)
    return ModelLayer(spec, tuple(blobs))


def _owners(spec: Message, i: int, weights: Weights, specs: Sequence[Message]) -> Blob:
    """The blob of the layer that owns the one missing here: the first whose `param` has its name."""
    name = spec.param[i].name if i < len(spec.param) else ""
    for other in specs if name else ():
        for j, param in enumerate(other.param):
            held = next((layer.blobs for layer in weights if layer.name == other.name), ())
            if param.name == name and j < len(held) and (other.name, j) not in weights.shared:
                return held[j]
    raise WeightsError(f"{weights.path}: layer {spec.name!r}: blob {i} is stored under the layer that shares it; give the prototxt, which says which")


def write_model(path: str | Path, model: Model) -> None:
    """Write a model as .caffemodel, with its net, or as .h5; all or nothing."""
    path = Path(path)
    if path.suffix not in (".caffemodel", ".h5"):
        raise WeightsError(f"{path}: weights are written as .caffemodel or .h5 here, not {path.suffix or 'without a suffix'!r}")
    with atomic_path(path) as temporary:
        if path.suffix == ".h5":
            _write_hdf5(temporary, model)
        else:
            write_wire(temporary, model)


def write_wire(path: Path, model: Model) -> None:
    """Write a .caffemodel to `path`, whatever its suffix, in one go."""
    head = model.head.copy()
    head.values["layer"] = [layer.spec for layer in model.layers]
    write_caffemodel(path, head, [layer.blobs for layer in model.layers])


def _write_hdf5(path: Path, model: Model) -> None:
    import h5py

    with h5py.File(path, "w") as f:
        data = f.create_group("data")
        for layer in model.layers:
            if not layer.name:
                if layer.blobs:
                    raise WeightsError(f"{path}: a layer without a name has weights, and HDF5 has no place for it; write a .caffemodel")
                continue
            group = data.require_group(layer.name)
            for i, blob in enumerate(layer.blobs):
                group.create_dataset(str(i), data=np.asarray(blob.array, np.float32).reshape(plain_shape(layer.spec.type, i, blob)))


def plain_shape(type_: str, index: int, blob: Blob) -> tuple[int, ...]:
    """The shape that a layer's blob has in today's Caffe: the older 4-D one loses the axes that only fill it up."""
    if not blob.legacy or (index == 0 and type_ in IMAGE_WEIGHTS):
        return blob.shape
    least = 2 if index == 0 and type_ in ("InnerProduct", "Embed") else 1
    shape = blob.shape
    while len(shape) > least and shape[0] == 1:
        shape = shape[1:]
    return shape


# Changes --------------------------------------------------------------------------------------------------------------


def with_rgb_input(model: Model, blob: str = "") -> Model:
    """The model for images in the other channel order, R G B for B G R: the first layers' weights trade their channels."""
    return _with_first_layers(model, blob, ("Split", "Pooling", "Dropout", "ReLU", "Power"), lambda layer: _swapped(model, layer))


def with_raw_input(model: Model, mean: Sequence[float], scale: float = 1.0, blob: str = "") -> Model:
    """The model for images as they are, where it wanted (image - mean) * scale: both go into the first layers' weights and biases."""
    means = np.asarray(mean, np.float64)
    return _with_first_layers(model, blob, ("Split",), lambda layer: _folded(model, layer, means, scale))


def _with_first_layers(model: Model, blob: str, transparent: Sequence[str], change: Any) -> Model:
    """The model with each layer that reads the image changed; what stands between may only be of the `transparent` types."""
    blobs, done, layers = {blob or _image(model)}, False, []
    for layer in model.layers:
        if blobs.isdisjoint(layer.spec.bottom):
            blobs.difference_update(layer.spec.top if layer.spec.bottom else ())
            layers.append(layer)
        elif layer.spec.type in transparent:
            blobs.update(layer.spec.top)
            layers.append(layer)
        elif layer.spec.type in ("Convolution", "InnerProduct"):
            layers.append(change(layer))
            done = True
        elif layer.spec.type == "Silence":
            layers.append(layer)
        else:
            raise _refused(model, layer, f"reads the image; only Convolution and InnerProduct can take this up, behind {', '.join(transparent)}")
    if not done:
        raise WeightsError(f"{model.path}: no layer reads the blob {blob or _image(model)!r}; --input names the image's blob")
    return replace(model, layers=tuple(layers))


def _image(model: Model) -> str:
    """The blob of the image: what is fed first, and must be the only one if Input layers say so."""
    if not model.carries_net:
        raise WeightsError(f"{model.path}: holds weights and no net; give its prototxt by --net, so that the first layer is known")
    sources = [layer for layer in model.layers if not layer.spec.bottom and layer.spec.top]
    inputs = [top for layer in sources for top in (layer.spec.top if layer.spec.type == "Input" else layer.spec.top[:1])]
    if len(inputs) != 1:
        raise WeightsError(f"{model.path}: {len(inputs)} blobs may be the image ({_some(inputs)}); name it by --input")
    return str(inputs[0])


def _swapped(model: Model, layer: ModelLayer) -> ModelLayer:
    weights = _weights(model, layer, 3)
    return _with_values(layer, {0: weights[:, ::-1]})


def _folded(model: Model, layer: ModelLayer, mean: Array, scale: float) -> ModelLayer:
    """y = W (x - m) s + b = (s W) x + (b - s W m), exact where no padding stands between."""
    p = layer.spec.convolution_param
    if layer.spec.type == "Convolution" and any((*p.pad, p.pad_h, p.pad_w)) and mean.any():
        raise _refused(
            model, layer, "pads the image with zeros, which a mean inside its bias would turn into -mean at the border; subtract it outside"
        )
    if len(layer.blobs) < 2:
        raise _refused(model, layer, "has no bias to take the mean up; write bias_term: true, or subtract it outside")
    weights = _weights(model, layer, mean.size if mean.size > 1 else 0).astype(np.float64)
    means = mean.reshape(1, -1, *(1,) * (weights.ndim - 2)) if mean.size > 1 else mean.reshape((1,) * weights.ndim)
    shift = scale * (weights * means).reshape(len(weights), -1).sum(1)
    bias = layer.blobs[1]
    return _with_values(layer, {0: weights * scale, 1: np.asarray(bias.array, np.float64) - shift})


def _weights(model: Model, layer: ModelLayer, channels: int) -> Array:
    """The layer's weights, float32 [outputs, channels, ...]."""
    if not layer.blobs:
        raise _refused(model, layer, "has no weights in this file")
    blob = layer.blobs[0]
    shape = plain_shape(layer.spec.type, 0, blob)
    values = np.asarray(blob.array, np.float32).reshape(shape)
    if layer.spec.type == "InnerProduct":
        if layer.spec.inner_product_param.transpose:
            raise _refused(model, layer, "holds its weights transposed")
        if values.ndim == 2 and values.shape[1] % max(channels, 1) == 0:
            return values.reshape(len(values), channels or 1, -1)
    elif values.ndim >= 3 and layer.spec.convolution_param.group == 1 and channels in (0, values.shape[1]):
        return values
    raise _refused(model, layer, f"has weights {list(shape)}, which are not those of an image of {channels or 'one'} channels")


def _with_values(layer: ModelLayer, values: Mapping[int, Array]) -> ModelLayer:
    blobs = list(layer.blobs)
    for i, array in values.items():
        blobs[i] = replace(blobs[i], held=np.ascontiguousarray(array, np.float32).reshape(-1))
    return replace(layer, blobs=tuple(blobs))


def _refused(model: Model, layer: ModelLayer, problem: str) -> WeightsError:
    return WeightsError(f"{model.path}: layer {layer.name!r} ({layer.spec.type}) {problem}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names[:6]) + (", ..." if len(names) > 6 else "")
