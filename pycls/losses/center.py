"""Center loss: L_C = 1/2 sum over rows of |x_i - c_{y_i}|^2, and centers that follow the features.

    d x_i = x_i - c_{y_i}
    delta c_j = sum over rows of class j of (c_j - x_i) / (1 + n_j);   c_j <- c_j - alpha delta c_j        (Algorithm 1)

Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, 2016. The centers are a buffer and no parameter:
neither lambda, nor the optimizer's rate, nor a loss scale reaches them. The caller multiplies the loss by lambda.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from prototxt import SolverError

Row = tuple[Tensor, Tensor, Tensor]  # class [N], x - c [N, D], present [N]


class CenterLoss(nn.Module):
    """Features [N, D] and classes [N] -> 0-d; a class below 0, or outside `present`, is missing and changes nothing.

    A forward pass in training mode remembers its rows; `update` moves the centers by all rows since the last one, so micro-batches
    count as one batch and processes count together. `step` of this module does both an optimizer's step and this.

    mode "paper" is Algorithm 1. mode "caffe" is the layer that the authors released, under Caffe's solver: alpha is the solver's rate of
    the iteration, with its momentum and its decay on the centers; each micro-batch has its own n_j, and their mean counts.

    The centers start at 0, or at `first` [classes, features]: what a layer's center_filler gives.
    """

    centers: Tensor
    velocity: Tensor | None

    def __init__(
        self,
        classes: int,
        features: int,
        *,
        alpha: float = 0.5,
        mode: str = "paper",
        momentum: float = 0.0,
        decay: float = 0.0,
        first: Tensor | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("paper", "caffe"):
            raise SolverError(f"center loss: mode is paper or caffe, not {mode!r}")
        if mode == "paper" and (momentum or decay):
            raise SolverError("center loss: the paper's centers have no momentum and no decay; mode caffe has them")
        if not (classes > 0 and features > 0 and alpha >= 0):
            raise SolverError(f"center loss: {classes} classes of {features} features at alpha {alpha:g}; the counts must be above 0")
        self.alpha, self.mode, self.momentum, self.decay = alpha, mode, momentum, decay
        self.register_buffer("centers", torch.zeros(classes, features))
        if first is not None:
            self.centers.copy_(first)
        self.register_buffer("velocity", torch.zeros(classes, features) if mode == "caffe" else None)
        self._rows: list[Row] = []

    def forward(self, features: Tensor, classes: Tensor, present: Tensor | None = None, divisor: Tensor | float | None = None) -> Tensor:
        """The loss over `divisor`; by default over the rows that count, so that it stands beside a mean cross-entropy.

        The paper's sum is divisor 1. Under accumulation or in several processes, pass the count of the whole batch.
        """
        here = classes >= 0 if present is None else present & (classes >= 0)
        rows = torch.where(here, classes, 0).long()
        with torch.autocast(features.device.type, enabled=False):
            apart = torch.where(here[:, None], features.to(self.centers.dtype) - self.centers[rows], 0)
            count = here.sum().clamp(min=1) if divisor is None else divisor
            loss = apart.square().sum() / (2 * count)
        if self.training:
            self._rows.append((rows, apart.detach(), here))
        return loss

    @torch.no_grad()
    def update(self, alpha: float | None = None) -> None:
        """Move the centers by the rows since the last update; `alpha` for this update alone, as a solver's rate of the iteration."""
        rows, self._rows = self._rows, []
        alpha = self.alpha if alpha is None else alpha
        if self.velocity is not None:
            self.velocity.mul_(self.momentum).add_(self._mean_delta(rows) + self.decay * self.centers, alpha=alpha)
            self.centers.sub_(self.velocity)
        elif rows or _processes() > 1:
            classes, apart, here = _of_all_processes(*self._joined(rows))
            self.centers.index_add_(0, classes, apart * (alpha * self._shares(classes, here))[:, None])

    def discard(self) -> None:
        """Forget the rows since the last update: their step was not taken."""
        self._rows = []

    def _shares(self, classes: Tensor, here: Tensor) -> Tensor:
        """1 / (1 + n_j) of each row [N], so that no matrix of all centers is made."""
        counts = self.centers.new_zeros(self.centers.shape[0]).index_add_(0, classes, here.to(self.centers.dtype))
        return (1 / (1 + counts))[classes]

    def _mean_delta(self, batches: list[Row]) -> Tensor:
        """Delta c [C, D] of each micro-batch of each process on its own, and their mean: what Caffe's solver sees."""
        delta = torch.zeros_like(self.centers)
        for classes, apart, here in batches:
            delta.index_add_(0, classes, apart * self._shares(classes, here)[:, None], alpha=-1 / len(batches))
        if _processes() > 1:
            torch.distributed.all_reduce(delta)
            delta /= _processes()
        return delta

    def _joined(self, rows: list[Row]) -> Row:
        if not rows:  # a process without rows takes part in the exchange all the same
            none = torch.zeros(0, dtype=torch.long, device=self.centers.device)
            return none, self.centers[:0], none.bool()
        return cast(Row, tuple(torch.cat(parts) for parts in zip(*rows, strict=True)))

    def extra_repr(self) -> str:
        """What the module is, for its repr."""
        return f"{self.centers.shape[0]}, {self.centers.shape[1]}, alpha={self.alpha:g}, mode={self.mode!r}"


def step(optimizer: Optimizer, *losses: CenterLoss, scaler: GradScaler | None = None, **rate: Any) -> bool:
    """One step of the optimizer and one update of the centers, or neither where the scaler met an inf; True if they were taken."""
    taken = True
    if scaler is None:
        optimizer.step()
    else:
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        taken = scaler.get_scale() >= before  # it shrinks exactly when the step was skipped
    for loss in losses:
        loss.update(**rate) if taken else loss.discard()
    return taken


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1


def _of_all_processes(classes: Tensor, apart: Tensor, here: Tensor) -> Row:
    """The rows of every process in rank order, so that num and n_j are sums over the whole batch and the same everywhere."""
    if _processes() == 1:
        return classes, apart, here
    sizes = [torch.zeros(1, dtype=torch.long, device=apart.device) for _ in range(_processes())]
    torch.distributed.all_gather(sizes, torch.tensor([len(classes)], device=apart.device))
    counts = [int(size) for size in sizes]
    return _gathered(classes, counts), _gathered(apart, counts), _gathered(here.to(torch.uint8), counts).bool()


def _gathered(rows: Tensor, counts: list[int]) -> Tensor:
    """Rows of every process [N_r, ...] -> [sum of N_r, ...]; they travel padded to the longest."""
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])
