"""What stands before a net of Caffe's, as a module, so that it can go into an exported file."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Prepare(nn.Module):
    """RGB images [N, C, H, W] of 0..255 -> (x - mean) * scale in the net's channel order."""

    mean: Tensor

    def __init__(self, mean: tuple[float, ...], scale: float, flip: bool) -> None:
        super().__init__()
        self.scale, self.swap = scale, flip
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.swap and x.shape[1] == 3:
            x = torch.cat((x[:, 2:3], x[:, 1:2], x[:, 0:1]), 1)
        return (x - self.mean) * self.scale
