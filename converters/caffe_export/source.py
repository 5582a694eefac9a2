"""The module that a command names: `package.module:callable`, or a prototxt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prototxt import NetError, WeightsError

from ..comparison.runners.user import import_module_of
from ..net import CaffeNet, load
from ..resolution import refuse_empty
from ..samples import sample_inputs
from .writer import Shape


def named(source: str, weights: Path | None, shapes: Mapping[str, Shape]) -> tuple[nn.Module | CaffeNet, tuple[Tensor, ...]]:
    """The module or the net, and an example, seeded. Of a callable, which is called without arguments, every input needs a shape, in order."""
    if Path(source).suffix == ".prototxt":
        net = load(source, weights=weights, shapes=shapes)
        refuse_empty(net.graph, source)
        return net, tuple(sample_inputs(net.graph).values())
    module = _called(source)
    if weights is not None:
        _load(module, weights)
    if not shapes:
        raise NetError(f"{source}: the shape of its input is not known; give it: --shape x=1,3,224,224, one for each input, in order")
    wrong = next((f"{name}={','.join(map(str, shape))}" for name, shape in shapes.items() if min(shape, default=0) < 1), None)
    if wrong is not None:
        raise NetError(f"--shape {wrong}: each of an input's sizes is at least 1")
    generator = torch.Generator().manual_seed(0)
    return module, tuple(torch.randn(shape, generator=generator) for shape in shapes.values())


def _called(source: str) -> nn.Module:
    if not source.partition(":")[2]:
        raise NetError(f"{source!r} is neither a .prototxt nor module:callable, as in torchvision.models:resnet18")
    module = import_module_of(source)
    if not isinstance(module, nn.Module):
        raise NetError(f"{source} gives a {type(module).__name__}, not a torch.nn.Module")
    return module


def _load(module: nn.Module, weights: Path) -> None:
    """A state_dict in a .safetensors file, whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if weights.suffix != ".safetensors":
        raise WeightsError(f"{weights}: weights of a module are read from .safetensors; pickles are not read")
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as exc:
        raise WeightsError(f"{weights}: {str(exc).splitlines()[0]}") from exc
