"""Convolutions in the two ways that torch's own do not have: several inputs with one set of weights, and more than one batch axis."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Each:
    """Convolves each input with the same weights; all axes before `axis` are batch axes."""

    def __init__(self, *, axis: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = tuple(self.convolve(x) for x in inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def convolve(self, x: Tensor) -> Tensor:
        if self.axis <= 1:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        batch = x.shape[: self.axis]
        return super().forward(x.flatten(0, self.axis - 1)).unflatten(0, batch)  # type: ignore[misc, no-any-return]


class Conv1dEach(Each, nn.Conv1d):  # type: ignore[misc]
    """nn.Conv1d for several inputs."""


class Conv2dEach(Each, nn.Conv2d):  # type: ignore[misc]
    """nn.Conv2d for several inputs."""


class Conv3dEach(Each, nn.Conv3d):  # type: ignore[misc]
    """nn.Conv3d for several inputs."""


class ConvTranspose1dEach(Each, nn.ConvTranspose1d):  # type: ignore[misc]
    """nn.ConvTranspose1d for several inputs."""


class ConvTranspose2dEach(Each, nn.ConvTranspose2d):  # type: ignore[misc]
    """nn.ConvTranspose2d for several inputs."""


class ConvTranspose3dEach(Each, nn.ConvTranspose3d):  # type: ignore[misc]
    """nn.ConvTranspose3d for several inputs."""
