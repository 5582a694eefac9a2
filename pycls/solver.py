"""Training as Caffe trains: one iteration at a time, with its nets, rates, updates, tests and snapshots. TRAINING.md has each rule.

solver = Solver("solver.prototxt", weights="start.caffemodel")
while solver.iteration < solver.settings.max_iter:
    loss = solver.step()
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from converters.graph import Step, resolve
from converters.net import CaffeNet, build
from converters.to_torch import held, returning
from prototxt import NetError, SolverError
from prototxt.data import Batches
from prototxt.net import Net
from prototxt.solver import SolverSettings, read_solver

from .checkpoint import restore_checkpoint, write_checkpoint
from .diagnosis import bad_label, first_bad, label_guard
from .distributed import World
from .feeding import Batch, Feed, LayerFeed, LoaderFeed, NoFeed
from .machine import Machine
from .passes import TrainPass
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

FIRST_SCALE = 1024.0  # of a loss in fp16; it grows by itself, and torch's 65536 would lose the first updates


class Solver:
    """A solver at work. `iteration` counts updates; `net` is the train net, whose weights the test nets share."""

    def __init__(
        self,
        path: str | Path,
        weights: str | Path | None = None,
        restore: str | Path | None = None,
        device: str | torch.device = "cpu",
        *,
        machine: Machine | None = None,
        world: World | None = None,
        feed: Iterable[Any] | None = None,
        test_feeds: Sequence[Iterable[Any]] = (),
    ) -> None:
        """Build the nets; load `weights` (else those that the solver names), or go on from the solverstate `restore`.

        `feed` and `test_feeds` are any iterables of batches, torch DataLoaders say, that take the place of the nets' own data layers.
        """
        self.path, self.settings = Path(path), read_solver(path)
        self.machine, self.world = machine or Machine(str(device)), world or World()
        self.device, self.iteration = torch.device(self.machine.device), 0
        self.losses: deque[float] = deque(maxlen=self.settings.average_loss)
        if self.settings.random_seed >= 0:
            torch.manual_seed(self.settings.random_seed)
        self.net = self._built(self.settings.train)
        self.tests = [self._built(net) for net in self.settings.tests]
        for net in self.tests:
            share(self.net, net)
        self.parameters = [held(self.net.module.get_submodule(step.key), step, i) for step, i in learnable(self.net)]
        self.learned = [p for p in self.parameters if p.requires_grad]
        self.statistics = [p for p in self.parameters if not isinstance(p, nn.Parameter)]
        self.optimizer = _optimizer(self.settings, self.net, self.parameters)
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=FIRST_SCALE) if self.machine.amp == "fp16" else None
        seed = max(self.settings.random_seed, 0)
        self.feed = self._fed(self.settings.train, self.net, seed, feed, self.world.share)
        given = [*test_feeds, *[None] * (len(self.tests) - len(test_feeds))]
        listed = zip(self.settings.tests, self.tests, given, strict=True)
        self.test_feeds = [self._fed(net, built, seed + i, loader, (0, 1)) for i, (net, built, loader) in enumerate(listed, 1)]
        if restore is None:
            for file in [weights] if weights is not None else self.settings.weights:
                self.net.load(file)
        self.world.copy_(self.parameters)
        if self.world.rank:  # what is random in a pass is another's in each process
            torch.manual_seed(torch.initial_seed() + self.world.rank)
        self._test_modules = [returning(net.built, [net.graph.last[name] for name in net.graph.outputs]) for net in self.tests]
        self._pass = TrainPass(self.net, self.device, self.world, amp=self.machine.amp, compiled=self.machine.compile)
        if restore is not None:
            restore_checkpoint(self, Path(restore))

    def _built(self, net: Net) -> CaffeNet:
        """A net with its parameters filled, on its device, in its layout."""
        built = build(resolve(net))
        built.module.to(self.device)
        if self.machine.channels_last:
            built.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return built

    def _fed(self, net: Net, built: CaffeNet, seed: int, given: Iterable[Any] | None, share: tuple[int, int]) -> Feed:
        """What feeds a net: the loader that was given, else its data layers; nothing if it makes all its blobs itself."""
        guard = label_guard(built)

        def finish(batch: Batch) -> Batch:
            guard(*batch)
            return Batch({name: self._laid_out(tensor) for name, tensor in batch.blobs.items() if name in known}, batch.records)

        known = {top for layer in built.graph.data_layers for top in layer.tops}
        if given is not None:
            return LoaderFeed(given, built.graph.inputs, finish)
        if not built.graph.data_layers:
            return NoFeed()
        return LayerFeed(Batches(net, seed=seed, share=share), finish, self.machine.workers)

    def _laid_out(self, tensor: Tensor) -> Tensor:
        tensor = tensor.float()
        if self.machine.channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor.pin_memory() if self.device.type == "cuda" and not tensor.is_pinned() else tensor

    @property
    def lr(self) -> float:
        """The rate of the next update, before lr_mult."""
        return POLICIES[self.settings.lr_policy](self.iteration, self.settings)

    @property
    def smoothed_loss(self) -> float:
        """The mean of the last `average_loss` losses."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")

    def step(self) -> float:
        """One iteration; returns the training loss before its update: the mean over `iter_size` passes."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(self._one_pass(last=i == self.settings.iter_size - 1) for i in range(self.settings.iter_size)) / self.settings.iter_size
        rate = self.lr
        if not math.isfinite(rate):
            policy = f"lr_policy {self.settings.lr_policy!r} with gamma {self.settings.gamma:g} and power {self.settings.power:g}"
            raise SolverError(f"{self.path}: the rate is {rate} at iteration {self.iteration}, by {policy}; choose others, or a smaller max_iter")
        self._update(rate)
        self.iteration += 1
        self.losses.append(loss)
        return loss

    def _one_pass(self, *, last: bool) -> float:
        """Forward and backward of one batch; its gradients are added to those that are there. The processes meet in the last pass."""
        batch = self.feed.next()
        inputs = self._moved(batch)
        with nullcontext() if last else self._pass.alone(), self._named(self.net, inputs, batch):
            objective, loss = self._pass(inputs)
            reading = _Reading(loss)
            if objective.requires_grad:
                (objective if self.scaler is None else self.scaler.scale(objective)).backward()
        value = reading.value()
        if value - value != 0:
            where = first_bad(self.net, inputs)
            raise SolverError(f"{self.path}: the loss is {value} at iteration {self.iteration}; the first that is not finite is {where}")
        return value

    @contextmanager
    def _named(self, net: CaffeNet, inputs: dict[str, Tensor], batch: Batch, test: str = "") -> Iterator[None]:
        """What torch raises in a pass as an error of ours: the label that is none, or else the solver and the iteration."""
        try:
            yield
        except (RuntimeError, IndexError, ValueError) as exc:
            what = bad_label(net, inputs, batch.records)
            raise what or NetError(f"{self.path}: {test}iteration {self.iteration}: {str(exc).splitlines()[0]}") from exc

    def _update(self, rate: float) -> None:
        """Clip, divide, decay, update. A parameter that no loss reaches has a gradient of zero, and decays."""
        for parameter in self.learned:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.world.mean_(self.statistics)
        if self.scaler is not None and self.learned:
            self.scaler.unscale_(self.optimizer)
        self._scale_gradients()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.scaler is not None and self.learned:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()

    def _scale_gradients(self) -> None:
        """Clip the sum over iter_size, then divide it (`clip_iter_size_decay`); a shared parameter counts once."""
        gradients = [p.grad for p in self.learned if p.grad is not None]
        if self.settings.clip_gradients >= 0 and gradients:
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            factor = torch.where(norm > self.settings.clip_gradients, self.settings.clip_gradients / norm, 1.0)
            torch._foreach_mul_(gradients, factor)
        if self.settings.iter_size > 1 and gradients:
            torch._foreach_mul_(gradients, 1 / self.settings.iter_size)

    def test(self, index: int = 0) -> dict[str, Tensor]:
        """{output blob: mean over test_iter batches} of a test net, which goes on in its data from test to test. As Caffe's, none of 0 batches."""
        if index >= len(self.tests):
            raise SolverError(f"{self.path}: there are {len(self.tests)} test nets, and none has the number {index}")
        net, module, count = self.tests[index], self._test_modules[index], self.settings.test_iter[index]
        net.module.eval()
        sums: list[Tensor] = []
        with torch.no_grad(), self._pass.autocast():
            for _ in range(count):
                batch = self.test_feeds[index].next()
                inputs = self._moved(batch)
                with self._named(net, inputs, batch, f"test net {index}, "):
                    made = module(*(inputs[name] for name in net.graph.inputs))
                sums = [a + b for a, b in zip(sums, made, strict=True)] if sums else [value.clone() for value in made]
        return {name: value.float() / count for name, value in zip(net.graph.outputs, sums, strict=True)} if sums else {}

    def snapshot(self) -> Path:
        """Write the weights and the solver's state, all or nothing; returns the path of the state."""
        return write_checkpoint(self)

    def _moved(self, batch: Batch) -> dict[str, Tensor]:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.blobs.items()}


class _Reading:
    """A loss on its way to the host: it is asked for when the forward pass is done, while the backward pass still runs on the device."""

    def __init__(self, loss: Tensor) -> None:
        self.loss, self._done = loss, None
        if loss.device.type == "cuda":
            self.loss = torch.empty((), pin_memory=True).copy_(loss, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()

    def value(self) -> float:
        """Wait for it."""
        if self._done is not None:
            self._done.synchronize()
        return float(self.loss)


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
