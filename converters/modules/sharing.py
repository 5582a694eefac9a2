"""Parameters shared between layers in another shape (share_mode: PERMISSIVE): the numbers in memory order, no transpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SharedParameters(nn.Module):
    """A module some of whose parameters are another module's, seen in the shape that this one needs."""

    def __init__(self, module: nn.Module, shared: dict[str, tuple[nn.Parameter, tuple[int, ...]]]) -> None:
        super().__init__()
        self.module, self.shapes = module, {name: shape for name, (_, shape) in shared.items()}
        for name, (parameter, _) in shared.items():
            delattr(module, name)
            module.register_buffer(name, torch.empty(0), persistent=False)  # a place for functional_call to fill
            self.register_parameter(name, parameter)

    def forward(self, *inputs: Tensor) -> Tensor:
        views = {name: getattr(self, name).view(shape) for name, shape in self.shapes.items()}
        return torch.func.functional_call(self.module, views, inputs)  # type: ignore[no-any-return]
