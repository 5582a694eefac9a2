"""Training as Caffe trains: one iteration at a time, with its nets, rates, updates, tests and snapshots. TRAINING.md has each rule.

solver = Solver("solver.prototxt", weights="start.caffemodel")
while solver.iteration < solver.settings.max_iter:
    loss = solver.step()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from converters.graph import Step, resolve
from converters.labels import check_fed
from converters.net import CaffeNet, build
from converters.to_torch import held
from prototxt import SolverError
from prototxt.data import Batches
from prototxt.net import Net
from prototxt.solver import SolverSettings, read_solver

from .checkpoint import restore_checkpoint, write_checkpoint
from .schedules import POLICIES
from .updates import OPTIMIZERS, CaffeOptimizer

RULE_OPTIONS = {
    "SGD": ("momentum",),
    "Nesterov": ("momentum",),
    "AdaGrad": ("delta",),
    "RMSProp": ("rms_decay", "delta"),
    "AdaDelta": ("momentum", "delta"),
    "Adam": ("momentum", "momentum2", "delta"),
}


class Solver:
    """A solver at work. `iteration` counts updates; `net` is the train net, whose weights the test nets share."""

    def __init__(
        self,
        path: str | Path,
        weights: str | Path | None = None,
        restore: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build the nets; load `weights` (else those that the solver names), or go on from the solverstate `restore`."""
        self.path, self.settings, self.device = Path(path), read_solver(path), torch.device(device)
        self.iteration = 0
        self._losses: deque[float] = deque(maxlen=self.settings.average_loss)
        if self.settings.random_seed >= 0:
            torch.manual_seed(self.settings.random_seed)
        seed = max(self.settings.random_seed, 0)
        self.net, self.feed = _fed(self.settings.train, self.device, seed)
        self.tests = [_fed(net, self.device, seed + i) for i, net in enumerate(self.settings.tests, 1)]
        for net, _ in self.tests:
            share(self.net, net)
        self.parameters = [held(self.net.module.get_submodule(step.key), step, i) for step, i in learnable(self.net)]
        self.optimizer = _optimizer(self.settings, self.net, self.parameters)
        if restore is None:
            for file in [weights] if weights is not None else self.settings.weights:
                self.net.load(file)
        else:
            restore_checkpoint(self, Path(restore))

    @property
    def lr(self) -> float:
        """The rate of the next update, before lr_mult."""
        return POLICIES[self.settings.lr_policy](self.iteration, self.settings)

    @property
    def smoothed_loss(self) -> float:
        """The mean of the last `average_loss` losses of this run."""
        return sum(self._losses) / len(self._losses) if self._losses else float("nan")

    def step(self) -> float:
        """One iteration; returns the training loss before its update: the mean over `iter_size` passes."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(self.settings.iter_size):
            blobs = self.net.blobs(self._next(self.net, self.feed))
            objective = self.net.objective(blobs)
            if objective.requires_grad:
                objective.backward()
            total += float(objective.detach())
            self._check_finite(total, blobs)
        rate = self.lr
        self._scale_gradients()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.iteration += 1
        loss = total / self.settings.iter_size
        self._losses.append(loss)
        return loss

    def test(self, index: int = 0) -> dict[str, Tensor]:
        """{output blob: mean over test_iter batches} of a test net, which goes on in its data from test to test."""
        if index >= len(self.tests):
            raise SolverError(f"{self.path}: there are {len(self.tests)} test nets, and none has the number {index}")
        net, feed = self.tests[index]
        net.module.eval()
        sums: dict[str, Tensor] = {}
        with torch.no_grad():
            for _ in range(self.settings.test_iter[index]):
                blobs = net.blobs(self._next(net, feed))
                for name in net.graph.outputs:
                    sums[name] = sums[name] + blobs[name] if name in sums else blobs[name].clone()
        return {name: value / self.settings.test_iter[index] for name, value in sums.items()}

    def snapshot(self) -> Path:
        """Write the weights and the solver's state, all or nothing; returns the path of the state."""
        return write_checkpoint(self)

    def _next(self, net: CaffeNet, feed: Batches | None) -> dict[str, Tensor]:
        if feed is None:
            return {}
        tops = {top for layer in net.graph.data_layers for top in layer.tops}
        arrays = {top: array for top, array in next(feed).items() if top in tops}
        check_fed(net.graph, arrays, feed.records)
        return {top: torch.from_numpy(array).to(self.device, torch.float32) for top, array in arrays.items()}

    def _scale_gradients(self) -> None:
        """Clip the sum over iter_size, then divide it (`clip_iter_size_decay`); a shared parameter counts once."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        limit, factor = self.settings.clip_gradients, 1.0
        if limit > 0 and gradients:
            norm = float(torch.stack(torch._foreach_norm(gradients)).norm())
            factor = limit / norm if norm > limit else 1.0
        factor /= self.settings.iter_size
        if factor != 1.0:
            torch._foreach_mul_(gradients, factor)

    def _check_finite(self, loss: float, blobs: Mapping[str, Tensor]) -> None:
        if loss - loss == 0:
            return
        first = next((name for name, value in blobs.items() if not value.isfinite().all()), "the loss")
        raise SolverError(f"{self.path}: the loss is {loss} at iteration {self.iteration}; the first blob that is not finite is {first!r}")


def _fed(net: Net, device: torch.device, seed: int) -> tuple[CaffeNet, Batches | None]:
    """A net with its parameters filled, and what feeds it; None if it makes all its blobs itself."""
    built = build(resolve(net))
    built.module.to(device)
    return built, Batches(net, seed=seed) if built.graph.data_layers else None


def learnable(net: CaffeNet) -> list[tuple[Step, int]]:
    """Caffe's learnable parameters in its order, as (step, index of the blob): each that no earlier layer owns, statistics included."""
    return [(step, i) for step in net.graph.steps for i, p in enumerate(step.params) if p.owner is None]


def share(source: CaffeNet, target: CaffeNet) -> None:
    """Give `target` the parameters of `source`, by layer name, as Caffe's test nets get them; statistics too."""
    named = {step.name: step for step in source.graph.steps if step.params}
    for step in target.graph.steps:
        other = named.get(step.name)
        if other is None or not step.params:
            continue
        theirs, ours = [p.blob.shape for p in other.params], [p.blob.shape for p in step.params]
        if theirs != ours:
            raise SolverError(f"layer {step.name!r} has parameters {theirs} in the train net and {ours} in a test net")
        _tie(source.module.get_submodule(other.key), other, target.module.get_submodule(step.key), step)


def _tie(source: nn.Module, theirs: Step, target: nn.Module, ours: Step) -> None:
    for i, param in enumerate(ours.params):
        holder = target if hasattr(target, param.blob.name) else target.module
        setattr(holder, param.blob.name, held(source, theirs, i))


def _optimizer(settings: SolverSettings, net: CaffeNet, parameters: Sequence[Tensor]) -> CaffeOptimizer:
    """The solver's rule, with a group for each pair of multipliers; what is not learned has the rate 0."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for (step, i), tensor in zip(learnable(net), parameters, strict=True):
        param = step.params[i]
        groups.setdefault((param.spec.lr_mult if param.blob.learned else 0.0, param.spec.decay_mult), []).append(tensor)
    rule = OPTIMIZERS[settings.type]
    options = {name: getattr(settings, name) for name in RULE_OPTIONS[settings.type]}
    listed = [{"params": tensors, "lr_mult": lr, "decay_mult": decay} for (lr, decay), tensors in groups.items()]
    listed = listed or [{"params": [torch.zeros(0)], "lr_mult": 0.0}]  # a net without parameters still runs
    return rule(listed, lr=settings.base_lr, weight_decay=settings.weight_decay, regularization=settings.regularization_type, **options)
