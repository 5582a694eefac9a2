"""The loop: steps of several batches that count as one, on one device or many, evaluated, checkpointed, stopped and gone on with exactly.

A step's loss of a task is divided by the labels of the whole step, over its batches and over all processes, so that neither
`accumulate` nor the number of processes changes a gradient. A branch with a sampler of its own has its batches beside the main ones in
every step; they are batches of the step that have no label of the other tasks. A run that is killed goes on from its last checkpoint
as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prototxt import ConfigError, LabelError, TrainingError

from ..augment import Mixture, mixing
from ..balancing import make_balancer
from ..distributed import World
from ..heads import MultiTaskModel
from ..labels import class_counts, suggest
from ..losses.multi_task import Part, all_reduced, label_divisors, multi_task_loss
from ..schedules import SCHEDULES, Plateau, scheduled
from ..tasks import Task
from .config import Config
from .drawing import drawing, streams
from .evaluation import Predictions, autocast, predict
from .feed import Batch, Rows, batch_count, batches, to_device, training_plan, training_rows
from .metric import MetricLosses, WithFeatures
from .model import Ema, Prepare, build_model, build_optimizer
from .state import below, optimizer_tensors, random_facts, random_tensors, read_state, restore_optimizer, restore_random, write_state
from .tables import Data

GRADIENTS = ("gradnorm", "pcgrad")  # weigh tasks by their gradients on the trunk, and average over processes by themselves

LEFT_OUT = 20  # steps in a row that fp16's scaler may leave out: by then its scale is below 1
REMEDY = "a lower train.optimizer.lr, or train.optimizer.clip=1, may help"
FALLING = ("loss", "MAE", "NLL", "Brier", "ECE", "adaptive_ECE", "instance_hamming")  # figures that are better when they are smaller


@dataclass
class Position:
    """Where a run is: the epoch, the batch in it, the updates made, and what the early stop knows."""

    epoch: int = 0
    batch: int = 0
    iteration: int = 0
    waited: int = 0  # evaluations without a better one
    best: list[tuple[float, str]] = field(default_factory=list)  # figure and file, the best first


class Trainer:
    """A run at work: the model, its optimizer, its data. `step` makes one update."""

    def __init__(self, config: Config, data: Data, device: torch.device, world: World | None = None) -> None:
        self.config, self.data, self.device, self.world = config, data, device, world or World()
        self.tasks = data.tasks
        policy = config.train.schedule.policy
        if policy not in SCHEDULES:
            raise ConfigError(f"train.schedule.policy {policy!r} is not known{suggest(policy, SCHEDULES)}")
        _determine(config)
        self.rows = training_rows(config, data.train, self.tasks)
        self.val = Rows(data.val, config.data.image, self.tasks, on_error=config.data.on_error, cache=config.data.cache) if data.val else None
        self.model = self._model()
        self.prepare = Prepare(config, self.rows.channels).to(device)
        self.balancer = make_balancer(config.train.task_weighting, self.tasks).to(device)
        self.metric = MetricLosses(config.tasks, self.model, self.world).to(device)
        self.optimizer = build_optimizer(config, self.model, self.balancer, self.metric)
        self.ema = Ema.of(config.train.ema, self.model) if config.train.ema.decay else None
        self.mix = mixing(config.augment)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.amp == "fp16")
        self.at = Position()
        self.draw = drawing(config, data)
        self.streams = streams(config, data, self.draw)
        self.plateau = Plateau(config.train.schedule.gamma, config.train.schedule.patience, config.train.schedule.min_delta, self.rising)
        self.meter = Meter(self)
        self._batches: list[Iterator[Batch]] = []
        self._net: nn.Module | None = None
        self._frozen: str | None = None
        if self.world.rank:  # all begin with the same weights, and then draw their own
            torch.manual_seed(config.seed + self.world.rank)

    def _model(self) -> MultiTaskModel:
        model = build_model(self.config, self.tasks, self.rows.channels)
        if self.config.model.start_at_prior:
            for task in self.tasks:
                counts: Any = class_counts(self.data.train, self.data.train.column(task.name)).astype(float)
                if task.activation == "sigmoid" and task.kind != "age":
                    present = self.data.train.present[task.name]
                    counts = counts[1:] / present.sum() if task.kind == "binary" else counts / present.sum(0).clip(1)
                elif task.na == "class":
                    counts = [*counts, float((~self.data.train.present[task.name]).sum())]
                model.set_prior(task.name, [float(n) for n in counts])
        if self.config.train.sync_batchnorm and self.world.size > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        memory = torch.channels_last if self.config.train.channels_last else torch.contiguous_format
        return model.to(self.device, memory_format=memory)  # type: ignore[call-overload, no-any-return]

    # Sizes and rates ----------------------------------------------------------------------------------------------

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this process in an epoch."""
        return batch_count(len(self.draw(self.at.epoch)), self.config.data.batch, self.world)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch."""
        return -(-self.batches_per_epoch // self.config.train.accumulate)

    @property
    def lr(self) -> float:
        """The rate of the next update, before the groups' multipliers. TrainingError where the schedule has none."""
        s = self.config.train.schedule
        numbers = SimpleNamespace(
            base_lr=self.config.train.optimizer.lr,
            max_iter=self.config.train.epochs * self.steps_per_epoch,
            **{name: getattr(s, name) for name in ("gamma", "power", "stepsize", "stepvalue", "floor", "peak", "warmup")},
        )
        rate = scheduled(s.policy, self.at.iteration, numbers) * self.plateau.factor
        if not math.isfinite(rate):
            policy = f"train.schedule.policy {s.policy} with gamma {s.gamma:g} and power {s.power:g}"
            raise TrainingError(f"the rate is {rate} at step {self.at.iteration}, by {policy}; choose others, or fewer epochs")
        return rate

    @property
    def rising(self) -> bool:
        """Whether the monitored figure is better when it is larger."""
        stop = self.config.train.stop
        return stop.mode == "max" if stop.mode else stop.monitor.rpartition("/")[2] not in FALLING

    # One update ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One update, of up to `accumulate` batches of each stream; the epoch's last may have fewer."""
        count = min(self.config.train.accumulate, self.batches_per_epoch - self.at.batch)
        taken = [self._next(number) for _ in range(count) for number in range(len(self.streams))]
        alone = len(taken) == 1 and taken[0].mixture is None and self.world.size == 1  # the batch is the step, and counts for itself
        divisors = None if alone else self._divisors(taken)
        self.metric.begin([(one.batch, one.tasks) for one in taken], self.device)
        net, rate = self.net, self.lr
        self.optimizer.zero_grad(set_to_none=True)
        for i, one in enumerate(taken):
            with net.no_sync() if i < len(taken) - 1 and hasattr(net, "no_sync") else nullcontext():  # type: ignore[operator]
                parts = self._parts(net, one, divisors)
                whole = divisors or {name: part.divisor for name, part in parts.items()}
                self._backward({name: part._replace(divisor=whole[name]) for name, part in parts.items()})
        self.meter.check(self.at.iteration)
        self.world.mean_([p.grad for p in self.metric.parameters() if p.grad is not None])  # DDP knows the model alone
        self._clip()
        self.model.drop_empty_gradients({t.name: whole[t.name] for t in self.tasks if t.normalization != "none"})
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        taken_up = self.scaler.get_scale() >= scale  # it falls exactly when the step met an inf and was left out
        self.meter.scaled(taken=taken_up)
        self.metric.update(taken=taken_up)
        if self.ema:
            self.ema.update(self.model)
        self.at.iteration += 1
        self.at.batch += count

    def _next(self, number: int) -> Taken:
        """The next batch of a stream."""
        if not self._batches:
            c = self.config.data
            plans = [training_plan(stream.draw, c.batch, self.world, self.at.epoch, self.at.batch) for stream in self.streams]
            self._batches = [batches(self.rows, plan, c.workers, pin=self.device.type == "cuda") for plan in plans]
        start = time.perf_counter()
        batch = next(self._batches[number])
        self.meter.waited += time.perf_counter() - start
        self.meter.skip(batch)
        if not len(batch):
            raise LabelError(f"none of the {len(batch.broken)} images of a batch decodes; the first: {batch.broken[0]}")
        return Taken(batch, self.mix(batch.images.shape) if self.mix and len(batch) > 1 else None, self.streams[number].tasks)

    def _divisors(self, taken: list[Taken]) -> dict[str, Tensor]:
        """What each task's loss is divided by: the labels of all batches of the step, of all processes, mixed ones by their shares."""
        total: dict[str, Tensor] = {}
        for batch, mixture, tasks in taken:
            for share, targets, masks in _shares(batch, mixture):
                for name, count in label_divisors(targets, masks, tasks).items():
                    total[name] = total[name] + share * count if name in total else share * count
        return all_reduced({name: count.to(self.device) for name, count in total.items()}) if self.world.size > 1 else total

    def _parts(self, net: nn.Module, taken: Taken, divisors: Mapping[str, Tensor] | None) -> dict[str, Part]:
        """The batch's part of each task's loss of the step; nothing of a task that learns from another stream."""
        batch, mixture = to_device(taken.batch, self.device), taken.mixture
        images = self.prepare(batch.images)
        if mixture is not None:
            images = mixture.images(images)
        if self.config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.config, self.device):
            outputs, features = net(images) if self.metric else (net(images), {})
        made = {task.name: _nothing(outputs[task.name]) for task in self.tasks if task not in taken.tasks}
        for share, targets, masks in _shares(batch, mixture):
            _, parts = multi_task_loss(outputs, targets, masks, taken.tasks, divisors=divisors, scale=float(self.world.size))
            for name, part in parts.items():
                shared = Part(*(share * value for value in part)) if share != 1 else part
                made[name] = Part(*(a + b for a, b in zip(made[name], shared, strict=True))) if name in made else shared
        made = {task.name: made[task.name] for task in self.tasks}
        self.meter.add(made)
        for name, loss in self.metric(features, batch, taken.tasks).items():
            made[name] = made[name]._replace(loss=made[name].loss + loss)
        return made

    def _backward(self, parts: Mapping[str, Part]) -> None:
        """Leave the gradients, as the tasks are weighed; the parts' divisors are those of the step."""
        if self.config.train.task_weighting in GRADIENTS and self.model.shared_parameters():
            self.balancer.backward(parts, self.model)
        else:
            self.scaler.scale(self.balancer.total(parts)).backward()
            self.world.mean_([p.grad for p in self.balancer.parameters() if p.grad is not None])  # DDP knows the model alone

    def _clip(self) -> None:
        limit = self.config.train.optimizer.clip
        if limit:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    @property
    def net(self) -> nn.Module:
        """The model as it trains: frozen as the epoch says, compiled, shared by all processes; made anew where the freezing changes."""
        frozen = "" if self.at.epoch < self.config.model.frozen_epochs or self.config.model.second_stage.method else None
        if self._net is None or frozen != self._frozen:
            self._frozen = frozen
            self.model.freeze(frozen)
            net: Any = WithFeatures(self.model) if self.metric else self.model
            net = torch.compile(net) if self.config.train.compile else net
            if self.world.size > 1 and self.config.train.task_weighting not in GRADIENTS:
                from torch.nn.parallel import DistributedDataParallel

                net = DistributedDataParallel(net, device_ids=[self.device] if self.device.type == "cuda" else None)
            self._net = net
        self._net.train()
        return self._net

    # Evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, rows: Rows) -> Predictions:
        """What the model says of the rows; its mean weights, where there are some."""
        if self.ema:
            self.ema.swap(self.model)
        try:
            return predict(self.model, self.prepare, rows, self.tasks, self.config, self.device, self.world)
        finally:
            if self.ema:
                self.ema.swap(self.model)

    # Checkpoints --------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write all that going on exactly takes; rank 0 writes, and all wait."""
        self.meter.settle()
        generators = self._generators()
        if self.world.main:
            tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
            tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
            tensors |= {f"random.{name}": tensor for name, tensor in generators.items()}
            tensors |= {f"balance.{name}": tensor for name, tensor in self.balancer.state_dict().items()}
            tensors |= {f"metric.{name}": tensor for name, tensor in self.metric.state_dict().items()}
            tensors |= {f"ema.{name}": tensor for name, tensor in (self.ema.mean if self.ema else {}).items()}
            facts = {
                "position": asdict(self.at),
                "plateau": asdict(self.plateau),
                "scaler": self.scaler.state_dict(),
                "ema_updates": self.ema.updates if self.ema else 0,
                "random": random_facts(),
                "tasks": [task.to_dict() for task in self.tasks],
                "processes": self.world.size,
                "optimizer": self.config.train.optimizer.name,
            }
            write_state(path, tensors, facts)
        self.world.barrier()

    def _generators(self) -> dict[str, Tensor]:
        """torch's generators of every process [processes, bytes]."""
        made = {}
        for name, state in random_tensors().items():
            states = torch.zeros((self.world.size, len(state)), dtype=torch.int32, device=self.device)
            states[self.world.rank] = state.to(self.device, torch.int32)
            made[name] = self.world.sum_(states).to("cpu", torch.uint8)
        return made

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. TrainingError if it is of another model, or of another number of processes."""
        tensors, facts = read_state(path)
        if "processes" not in facts:
            raise TrainingError(
                f"{path}: holds the weights of an epoch alone, as a best-<epoch>.safetensors; a run goes on from its last.safetensors"
            )
        if facts["processes"] != self.world.size:
            raise TrainingError(
                f"{path}: is of a run of {facts['processes']} processes, and this one has {self.world.size}; the order of its data would differ"
            )
        self._same_rules(path, tensors, facts)
        try:
            self.model.load_state_dict(below(tensors, "model"))
            self.balancer.load_state_dict(below(tensors, "balance"))
            self.metric.load_state_dict(below(tensors, "metric"))
            restore_optimizer(self.optimizer, below(tensors, "optimizer"))
            if self.ema:
                self.ema.mean = {name: t.to(self.device) for name, t in below(tensors, "ema").items()}
                self.ema.updates = facts["ema_updates"]
            position = facts["position"]
            self.at = Position(**{**position, "best": [(figure, file) for figure, file in position["best"]]})
            self.plateau = Plateau(**facts["plateau"])
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(facts["scaler"])
            restore_random({name: states[self.world.rank] for name, states in below(tensors, "random").items()}, facts["random"])
        except (RuntimeError, KeyError, TypeError, ValueError) as exc:
            raise TrainingError(f"{path}: is not of this config: {str(exc).splitlines()[0][:200]}") from exc
        self._batches = []

    def _same_rules(self, path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """TrainingError if the run had another optimizer, or a mean of the weights where this one has none."""
        name = self.config.train.optimizer.name
        adams = any(key.endswith(".exp_avg") for key in below(tensors, "optimizer"))
        had = facts.get("optimizer", name if adams == (name != "sgd") else "adam" if adams else "sgd")  # older files do not say it
        if had != name and below(tensors, "optimizer"):
            raise TrainingError(f"{path}: is of a run with train.optimizer.name={had}, and this config has {name}, which would begin from nothing")
        kept = below(tensors, "ema").keys()
        if kept != (self.ema.mean.keys() if self.ema else set()):
            run = "of a run without a mean of the weights" if not kept else "of a run with a mean of the weights (train.ema.decay)"
            raise TrainingError(f"{path}: is {run}, and this config has train.ema.decay={self.config.train.ema.decay:g}; leave it as it was")

    def weights(self) -> dict[str, Tensor]:
        """The weights that ship: the model's, or their mean, by name."""
        state = dict(self.model.state_dict())
        return state | (self.ema.mean if self.ema else {})


class Taken(NamedTuple):
    """A batch of a step, how its images are mixed, and the tasks that learn from it."""

    batch: Batch
    mixture: Mixture | None
    tasks: tuple[Task, ...]


class Meter:
    """What a run says of itself between two lines: losses by task, labels, waiting, images; and the guard against losses that are no numbers."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.images = self.skipped = 0
        self.left_out = self.in_a_row = 0  # steps, by fp16's scaler
        self.waited = 0.0
        self.since = time.perf_counter()
        self.problems: list[str] = []
        self._sums: dict[str, Tensor] = {}
        self._pending: list[tuple[int, Tensor]] = []
        self._now: list[Tensor] = []

    def skip(self, batch: Batch) -> None:
        """Count a batch's images, and those that were left out."""
        self.images += len(batch)
        self.skipped += len(batch.broken)
        self.problems += batch.broken[: max(0, 10 - len(self.problems))]

    def add(self, parts: Mapping[str, Part]) -> None:
        """Add a loss's parts, which stay on the device."""
        self._now.append(torch.stack([torch.stack([part.numerator.detach().float(), part.divisor.float()]) for part in parts.values()]))

    def check(self, iteration: int) -> None:
        """Note the step; on the CPU, refuse a loss that is no number before it reaches the weights."""
        step = torch.stack(self._now).sum(0)
        self._now = []
        self._sums["all"] = self._sums["all"] + step if "all" in self._sums else step
        self._pending.append((iteration, step[:, 0]))
        if self.trainer.device.type == "cpu":
            self.settle()

    def scaled(self, *, taken: bool) -> None:
        """With fp16, note whether the scaler took the step. It leaves some out until its scale fits; TrainingError if that does not end."""
        if not self.trainer.scaler.is_enabled():
            return
        self.left_out, self.in_a_row = (self.left_out, 0) if taken else (self.left_out + 1, self.in_a_row + 1)
        if self.in_a_row == LEFT_OUT:
            iteration = self._pending[-1][0]
            self._refuse()
            raise TrainingError(f"no gradient is finite in {LEFT_OUT} steps up to step {iteration}; {REMEDY}, and so may train.amp=bf16")
        self._pending = []

    def settle(self) -> None:
        """TrainingError with the first step and task whose loss is no number; with fp16 that is for `scaled` to say."""
        if self._pending and not self.trainer.scaler.is_enabled():
            self._refuse()
            self._pending = []

    def _refuse(self) -> None:
        finite = torch.stack([losses for _, losses in self._pending]).isfinite().cpu()
        for (iteration, losses), row in zip(self._pending, finite.tolist(), strict=True):
            for task, fine, loss in zip(self.trainer.tasks, row, losses.tolist(), strict=True):
                if not fine:
                    raise TrainingError(f"the loss of task {task.name!r} is {loss} at step {iteration}; {REMEDY}")

    def read(self) -> dict[str, Any]:
        """Losses by task since the last reading, over all processes; images a second; the share of time that data was waited for. Starts anew."""
        self.settle()
        sums = self._sums.get("all", torch.zeros(len(self.trainer.tasks), 2, device=self.trainer.device)).clone()
        self.trainer.world.sum_(sums)
        losses = {t.name: n / c if c else n for t, (n, c) in zip(self.trainer.tasks, sums.tolist(), strict=True)}
        labels = {t.name: c for t, (_, c) in zip(self.trainer.tasks, sums.tolist(), strict=True)}
        seconds = max(time.perf_counter() - self.since, 1e-9)
        facts = {
            "loss": sum(t.weight * losses[t.name] for t in self.trainer.tasks),
            "losses": losses,
            "metric": self.trainer.metric.read(),
            "weights": self.trainer.balancer.weights(),
            "labels": labels,
            "left_out": self.left_out,
            "images_per_second": self.images * self.trainer.world.size / seconds,
            "data_wait": self.waited / seconds,
        }
        self._sums, self.images, self.waited, self.since = {}, 0, 0.0, time.perf_counter()
        return facts


def _shares(batch: Batch, mixture: Mixture | None) -> list[tuple[float, dict[str, Tensor], dict[str, Tensor]]]:
    """The labels that a batch answers to, with their shares: its own, or its own and its partners'."""
    if mixture is None:
        return [(1.0, batch.targets, batch.masks)]
    other = ({n: t[mixture.other] for n, t in labels.items()} for labels in (batch.targets, batch.masks))
    return [(mixture.share, batch.targets, batch.masks), (1 - mixture.share, *other)]  # type: ignore[list-item]


def _nothing(output: Tensor) -> Part:
    """The part of a task without labels, connected to the graph, so that every process has a gradient of every head."""
    zero = output.float().masked_fill(torch.ones_like(output, dtype=torch.bool), 0).sum()
    return Part(zero, zero.detach(), zero)


def _determine(config: Config) -> None:
    """Seed everything; deterministic algorithms where the config asks for them."""
    import random

    import numpy as np

    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    if config.train.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
