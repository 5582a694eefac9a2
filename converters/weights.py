"""Parameter blobs <-> the module's tensors, both ways, by layer name and position as Caffe copies them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prototxt import Message, WeightsError
from prototxt.data import fillers
from prototxt.files import atomic_path, check_file
from prototxt.message import new
from prototxt.models import Model, ModelLayer, write_wire
from prototxt.weights import LayerBlobs, Weights, fits, read_weights
from prototxt.wire import Blob

from .graph import Graph, Step
from .to_torch import held


@dataclass(frozen=True, slots=True)
class Copied:
    """What a load did, by layer name: `loaded`, `kept` (in the net, not in the file) and `unused` (in the file, not in the net)."""

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]


def fill(graph: Graph, module: nn.Module) -> None:
    """Fill every parameter by its filler, without one by zeros, in the order of the layers; the seed comes from torch's generator."""
    generator = np.random.default_rng(int(torch.randint(2**62, ())))
    for step in graph.steps:
        for i, param in enumerate(step.params):
            if param.owner is None:
                _fill(_tensor(step, module, i).detach(), param.blob.filler, generator)


def _fill(tensor: Tensor, filler: Message | None, generator: np.random.Generator) -> None:
    if filler is None:
        tensor.zero_()
    elif tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous():
        fillers.fill_into(tensor.numpy(), filler, generator)
    else:
        tensor.copy_(torch.from_numpy(fillers.fill(tuple(tensor.shape), filler, generator)))


def params(graph: Graph, module: nn.Module) -> dict[str, list[Tensor]]:
    """Live parameter tensors by layer name, in Caffe's order and shape; with their gradients, if there are some."""
    return {step.name: [_in_shape(_tensor(step, module, i), step, i) for i in range(len(step.params))] for step in graph.steps if step.params}


def _tensor(step: Step, module: nn.Module, i: int) -> Tensor:
    return held(module.get_submodule(step.key), step, i)


def _in_shape(tensor: Tensor, step: Step, i: int) -> Tensor:
    shape = step.params[i].blob.shape
    if tensor.shape == shape:
        return tensor
    view = tensor.detach().view(shape)
    if tensor.grad is not None:
        view.grad = tensor.grad.view(shape)
    return view


# Loading --------------------------------------------------------------------------------------------------------------


def load(graph: Graph, module: nn.Module, source: str | Path | Weights | Mapping[str, Sequence[Any]]) -> Copied:
    """Copy weights from a .caffemodel, .h5, .safetensors or .pt file, from one already read, or {layer: [arrays]}, into the module.

    Layers that one side lacks are passed over, as in Caffe. WeightsError names the layer and both shapes where they differ, and
    refuses a file that has no layer in common with the net. Conformance: formats/weights_*.
    """
    if isinstance(source, Weights):
        return _copy(graph, module, source)
    if isinstance(source, Mapping):
        return _copy(graph, module, _from_arrays(source))
    path = check_file(source)
    reader = _NAMED.get(path.suffix)
    if reader is not None:
        return reader(graph, module, path)
    return _copy(graph, module, read_weights(path))


def _from_arrays(source: Mapping[str, Sequence[Any]]) -> Weights:
    layers = []
    for name, arrays in source.items():
        plain = [np.asarray(a.detach().cpu() if isinstance(a, Tensor) else a) for a in arrays]
        layers.append(LayerBlobs(name, "", tuple(Blob(a.shape, False, a.reshape(-1)) for a in plain)))
    return Weights(Path("<arrays>"), tuple(layers))


def _copy(graph: Graph, module: nn.Module, weights: Weights) -> Copied:
    targets: dict[str, list[Step]] = {}
    for step in graph.steps:
        targets.setdefault(step.name, []).append(step)
    found: list[str] = []
    unused: list[str] = []
    for layer in weights:
        steps = [step for step in targets.get(layer.name, []) if step.params or layer.blobs]
        if not steps:
            if layer.blobs and layer.name not in targets:
                unused.append(layer.name)
            continue
        for step in steps:
            _copy_layer(step, module, layer, weights)
        found.append(layer.name)
    wanted = [step.name for step in graph.steps if step.params]
    if unused and wanted and not set(wanted) & set(found):
        raise WeightsError(
            f"{weights.path}: none of its layers ({_some(unused)}) has a name of the net's ({_some(wanted)}); these are weights of another net"
        )
    return Copied(tuple(dict.fromkeys(found)), tuple(n for n in wanted if n not in found), tuple(unused))


def _copy_layer(step: Step, module: nn.Module, layer: LayerBlobs, weights: Weights) -> None:
    where = f"{weights.path}: layer {layer.name!r}"
    skipped = {i for i, p in enumerate(step.params) if p.owner is not None and (layer.name, i) in weights.shared}
    if weights.hdf5 and len(layer.blobs) < len(step.params):
        absent = set(range(len(layer.blobs), len(step.params)))
        skipped |= {i for i in absent if step.params[i].owner is not None}
        if absent - skipped:
            raise WeightsError(f"{where}: blob {min(absent - skipped)} is missing; the net has {len(step.params)}")
    elif len(layer.blobs) != len(step.params):
        raise WeightsError(f"{where} has {len(layer.blobs)} blobs, in the net it has {len(step.params)} ({step.type}, {step.place})")
    for i, blob in enumerate(layer.blobs[: len(step.params)]):
        if i in skipped:
            continue
        if (layer.name, i) in weights.shared:
            raise WeightsError(f"{where}: blob {i} is missing, and the net does not share it with another layer")
        shape = step.params[i].blob.shape
        if not any(fits(blob, s) for s in (shape, *step.params[i].blob.also)):
            raise WeightsError(
                f"{where}: blob {i} ({step.params[i].blob.name}) has shape {list(blob.shape)}, in the net {list(shape)} ({step.place})"
            )
        _write(_tensor(step, module, i), blob)


def _write(tensor: Tensor, blob: Blob) -> None:
    target = tensor.detach()
    if target.device.type == "cpu" and target.dtype == torch.float32 and target.is_contiguous():
        blob.read_into(target.numpy())
    else:
        target.copy_(torch.from_numpy(np.array(blob.array, dtype=np.float32)).reshape(target.shape))


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names[:4]) + (", ..." if len(names) > 4 else "")


def _load_safetensors(graph: Graph, module: nn.Module, path: Path) -> Copied:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            return _copy_named(graph, module, path, {key: partial(f.get_tensor, key) for key in f.keys()})  # noqa: SIM118  it is no dict
    except (SafetensorError, OSError) as exc:
        raise WeightsError(f"{path}: no safetensors file, or a damaged one: {exc}") from exc


def _load_state_dict(graph: Graph, module: nn.Module, path: Path) -> Copied:
    return _copy_named(graph, module, path, {key: partial(_itself, tensor) for key, tensor in read_state_dict(path).items()})


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state_dict as torch.save writes it, by torch's reader that makes tensors and nothing else of a file. WeightsError for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = next((entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED), None)
        if packed:
            raise WeightsError(f"{path}: {packed} is compressed, which torch.save never does; it might unfold to any size")
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as exc:  # whatever torch's reader finds
        raise WeightsError(f"{path}: no state_dict that torch reads without running code: {str(exc).splitlines()[0][:200]}") from exc
    if not isinstance(stored, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in stored.items()):
        raise WeightsError(f"{path}: holds something else than tensors by name; save net.module.state_dict()")
    return stored


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _copy_named(graph: Graph, module: nn.Module, path: Path, stored: Mapping[str, Callable[[], Tensor]]) -> Copied:
    """By the module's own names; as strict about shapes as Caffe is, as lenient about what one side lacks."""
    own = module.state_dict()
    shared = stored.keys() & own.keys()
    if stored and own and not shared:
        raise WeightsError(f"{path}: none of its tensors ({_some(sorted(stored))}) has a name of the net's; these are weights of another net")
    for key in sorted(shared):
        tensor = stored[key]()
        if tensor.shape != own[key].shape:
            raise WeightsError(f"{path}: {key} has shape {list(tensor.shape)}, in the net {list(own[key].shape)}")
        own[key].detach().copy_(tensor)
    loaded = tuple(step.name for step in graph.steps if step.params and any(key.startswith(f"{step.key}.") for key in shared))
    kept = tuple(step.name for step in graph.steps if step.params and step.name not in loaded)
    return Copied(loaded, kept, tuple(sorted(stored.keys() - shared)))


_NAMED = {".pt": _load_state_dict, ".pth": _load_state_dict, ".safetensors": _load_safetensors}  # files with the module's own names


# Saving ---------------------------------------------------------------------------------------------------------------


def save(graph: Graph, module: nn.Module, path: str | Path) -> None:
    """Write the parameters as .caffemodel (with the net's layers, for real Caffe), .h5, .safetensors or .pt, by the suffix."""
    path = Path(path)
    writers = {
        ".caffemodel": _save_caffemodel,
        ".h5": _save_hdf5,
        ".pt": _save_state_dict,
        ".pth": _save_state_dict,
        ".safetensors": _save_safetensors,
    }
    if path.suffix not in writers:
        raise WeightsError(f"{path}: weights are written as .caffemodel, .h5, .safetensors or .pt, not {path.suffix or 'without a suffix'!r}")
    with atomic_path(path) as temporary:
        writers[path.suffix](graph, module, temporary)


def _arrays(graph: Graph, module: nn.Module) -> Iterator[tuple[Step, list[np.ndarray[Any, Any]]]]:
    for step in graph.steps:
        yield step, [_in_shape(_tensor(step, module, i), step, i).detach().cpu().float().numpy() for i in range(len(step.params))]


def model_of(graph: Graph, module: nn.Module, path: Path) -> Model:
    """The layers and their blobs, so that a file of them alone is the net, as Caffe's snapshots are."""
    layers = [ModelLayer(data.layer.spec) for data in graph.data_layers]
    for step, arrays in _arrays(graph, module):
        if step.spec is not None:
            layers.append(ModelLayer(step.spec, tuple(Blob(array.shape, False, array.reshape(-1)) for array in arrays)))
    return Model(path, new("NetParameter", name=graph.name or None), tuple(layers))


def _save_caffemodel(graph: Graph, module: nn.Module, path: Path) -> None:
    write_wire(path, model_of(graph, module, path))


def _save_hdf5(graph: Graph, module: nn.Module, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as f:
        data = f.create_group("data")
        for step, arrays in _arrays(graph, module):
            group = data.require_group(step.name)
            for i, array in enumerate(arrays):
                if step.params[i].owner is None:
                    group.create_dataset(str(i), data=array)


def _save_safetensors(graph: Graph, module: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_tensors(module), path, metadata={"format": "pt", "net": graph.name})
    except SafetensorError as exc:  # also where the disk is full, or the folder is not there
        raise OSError(f"{exc}") from exc


def _save_state_dict(graph: Graph, module: nn.Module, path: Path) -> None:
    with open(path, "wb") as f:
        torch.save(_tensors(module), f)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
