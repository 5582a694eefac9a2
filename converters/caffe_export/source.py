"""The module that a command names: `package.module:callable`, or a prototxt."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from prototxt import NetError, WeightsError

from ..samples import sample_inputs
from .writer import Shape


def named(source: str, weights: Path | None, shapes: Mapping[str, Shape]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module and an example, seeded, of the shapes. Of a callable, which is called without arguments, every input needs one, in order."""
    if Path(source).suffix == ".prototxt":
        from ..net import load

        net = load(source, weights=weights, shapes=shapes)
        return net.module, tuple(sample_inputs(net.graph).values())
    module = _called(source)
    if weights is not None:
        _load(module, weights)
    if not shapes:
        raise NetError(f"{source}: the shape of its input is not known; give it: --shape x=1,3,224,224, one for each input, in order")
    generator = torch.Generator().manual_seed(0)
    return module, tuple(torch.randn(shape, generator=generator) for shape in shapes.values())


def _called(source: str) -> nn.Module:
    home, _, name = source.partition(":")
    if not name:
        raise NetError(f"{source!r} is neither a .prototxt nor module:callable, as in torchvision.models:resnet18")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the user's own modules lie in the working directory
    try:
        made = getattr(import_module(home), name)
    except (ImportError, AttributeError) as exc:
        raise NetError(f"{source}: {exc}") from exc
    module = made if isinstance(made, nn.Module) else made()
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
