"""A run: its folder, its epochs, its best checkpoints, and the bundle and the report at its end.

runs/<name>/config.yaml            the effective config
            log.jsonl              one record an event
            last.safetensors       all that going on exactly takes
            best-<epoch>.safetensors   weights of the best epochs
            bundle/  report.html  report.json
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prototxt import FileProblem, TrainingError

from ..distributed import World
from ..progress import Progress, duration
from ..runlog import RunLog
from ..trainer import stoppable
from .config import Config, write_config
from .decisions import MAIN, figures, monitored
from .engine import Trainer
from .second_stage import UNTRAINED, fit_head
from .state import optimizer_tensors, write_state
from .tables import load_data, train_counts

LAST = "last.safetensors"


def run_folder(config: Config) -> Path:
    """Where a run writes."""
    return Path(config.output) / config.name


def start(config: Config, device: torch.device, world: World, *, resume: bool = False) -> Trainer:
    """A trainer with its folder; with `resume` it goes on from the last checkpoint. TrainingError if the folder has a run and it is not asked to."""
    folder = run_folder(config)
    trainer = Trainer(config, load_data(config), device, world)
    if resume:
        if not (folder / LAST).exists():
            raise TrainingError(f"{folder}: there is no {LAST} to go on from; leave --resume out")
        trainer.restore(folder / LAST)
    elif (folder / LAST).exists():
        raise TrainingError(f"{folder}: holds a run already; --resume goes on with it, name=... or output=... start another")
    if world.main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise FileProblem(f"{folder}: cannot be made: {exc.strerror}") from exc
        write_config(config, folder / "config.yaml")
    world.barrier()
    return trainer


def fit(trainer: Trainer, progress: Progress) -> bool:
    """Train to the last epoch, or until nothing gets better; False if a signal ended it before, with all saved."""
    config, folder = trainer.config, run_folder(trainer.config)
    main = trainer.world.main
    log = RunLog(folder / "log.jsonl" if main else None, folder / "tensorboard" if main and config.train.tensorboard else None)
    run = _Run(trainer, folder, progress, log)
    total = 0 if config.model.second_stage.method in UNTRAINED else config.train.epochs * trainer.steps_per_epoch
    try:
        with stoppable() as stop, progress.bar(total, trainer.at.iteration, config.name):
            run.begin(total)
            if config.model.second_stage.method in UNTRAINED:
                run.fitted()
                return True
            done = run.ended()
            while trainer.at.epoch < config.train.epochs and not done:
                if not run.epoch(stop):
                    return False
                done = run.ended()
            log.write("stop", trainer.at.iteration, done=True)
    finally:
        log.close()
    return True


class _Run:
    """What happens around the steps."""

    def __init__(self, trainer: Trainer, folder: Path, progress: Progress, log: RunLog) -> None:
        self.trainer, self.folder, self.progress, self.log = trainer, folder, progress, log
        self.config = trainer.config
        self.started, self.first = time.perf_counter(), trainer.at.iteration
        self.reported = self.reported_steps = 0

    def begin(self, total: int) -> None:
        """Say what is to come."""
        t = self.trainer
        parameters = sum(p.numel() for p in t.model.parameters())
        images = self.config.data.batch * self.config.train.accumulate * t.world.size
        self.progress.say(
            f"{self.config.name}: {len(t.data.train):,} rows, {len(t.tasks)} tasks, {parameters:,} parameters, {total:,} steps of {images} images"
            f", on {t.device}"
            + (f", {t.world.size} processes" if t.world.size > 1 else "")
            + (f"; going on at step {t.at.iteration}" if t.at.iteration else "")
        )
        facts = {"name": self.config.name, "rows": len(t.data.train), "steps": total, "device": str(t.device), "processes": t.world.size}
        self.log.write("start", t.at.iteration, **facts)

    def epoch(self, stop: Any) -> bool:
        """The rest of an epoch, and what follows it; False if a signal came."""
        t, c = self.trainer, self.config.train
        while t.at.batch < t.batches_per_epoch:
            rate = t.lr
            t.step()
            if t.at.iteration % c.log_every == 0:
                self._line(rate)
            if c.checkpoint_every and t.at.iteration % c.checkpoint_every == 0:
                t.save(self.folder / LAST)
            if t.world.any(stop.asked, t.device):
                t.save(self.folder / LAST)
                self.progress.say(f"stopped at step {t.at.iteration}; --resume goes on from {self.folder / LAST}")
                self.log.write("stop", t.at.iteration, done=False)
                return False
        t.at.epoch, t.at.batch = t.at.epoch + 1, 0
        self._evaluate()
        t.save(self.folder / LAST)
        return True

    def fitted(self) -> None:
        """A second stage that is fitted instead of trained, unless it was."""
        t = self.trainer
        if not t.at.epoch:
            self.progress.say(fit_head(t))
            t.at.epoch = 1
            self._evaluate()
            t.save(self.folder / LAST)
        self.log.write("stop", t.at.iteration, done=True)

    def ended(self) -> bool:
        """Whether nothing has become better for as long as the config waits."""
        patience = self.config.train.stop.patience
        if patience and self.trainer.at.waited >= patience:
            self.progress.say(f"no better {self.config.train.stop.monitor} for {patience} evaluations: the run ends")
            return True
        return False

    def _line(self, rate: float) -> None:
        t = self.trainer
        facts = t.meter.read()
        speed = (t.at.iteration - self.first) / max(time.perf_counter() - self.started, 1e-9)
        left = (self.config.train.epochs * t.steps_per_epoch - t.at.iteration) / speed
        losses = ", ".join(f"{name} {value:.4g}" for name, value in facts["losses"].items())
        memory = f", {torch.cuda.max_memory_allocated(t.device) / 2**30:.2f} GiB" if t.device.type == "cuda" else ""
        self.progress.say(
            f"epoch {t.at.epoch + 1}, step {t.at.iteration}: loss {facts['loss']:.4g}"
            + (f" ({losses})" if len(t.tasks) > 1 else "")
            + f", lr {rate:.3g}, {facts['images_per_second']:,.0f} img/s, data wait {facts['data_wait']:.0%}{memory}, {duration(left)} left"
        )
        self.progress.at(t.at.iteration, f"loss {facts['loss']:.4g}")
        self.log.write("train", t.at.iteration, epoch=t.at.epoch, lr=rate, **facts)
        self._broken()

    def _broken(self) -> None:
        """Say which images and steps were left out, so that nothing is skipped in silence."""
        meter = self.trainer.meter
        if meter.left_out > self.reported_steps:
            self.progress.say(f"{meter.left_out} steps left out so far, since their gradients are not finite in fp16")
            self.reported_steps = meter.left_out
        if meter.skipped > self.reported:
            self.progress.say(f"warning: {meter.skipped} images left out so far, since they do not decode; the first: {meter.problems[0]}")
            self.log.write("skipped", self.trainer.at.iteration, count=meter.skipped, first=meter.problems)
            self.reported = meter.skipped

    def _evaluate(self) -> None:
        t, start = self.trainer, time.perf_counter()
        self._broken()
        if t.val is None:
            self.log.write("epoch", t.at.iteration, epoch=t.at.epoch)
            self._keep(None)
            return
        made = figures(t.evaluate(t.val))
        value = monitored(self.config.train.stop.monitor, made)
        shown = [f"{task.name} {MAIN[task.kind]} {_short(made['tasks'][task.name]['metrics'].get(MAIN[task.kind]))}" for task in t.tasks]
        better = self._keep(value)
        self.progress.say(f"epoch {t.at.epoch}: validation loss {made['loss']:.4g}, score {_short(made['score'])}; {', '.join(shown)}{better}")
        metrics = {name: facts["metrics"] for name, facts in made["tasks"].items()}
        self.log.write("test", t.at.iteration, epoch=t.at.epoch, loss=made["loss"], score=made["score"], tasks=metrics)
        self.started += time.perf_counter() - start  # the time left is that of training
        t.meter.since += time.perf_counter() - start

    def _keep(self, value: float | None) -> str:
        """Keep the weights of a good epoch; what to say of it. Without a validation list the last is the best; an undefined figure is the worst."""
        t, stop = self.trainer, self.config.train.stop
        value = None if value is None or math.isnan(value) else value
        sign = 1.0 if t.rising else -1.0
        figure = sign * value if value is not None else float(t.at.epoch) if t.val is None else float("-inf")
        first = t.at.best[0][0] if t.at.best else float("-inf")
        improved = figure > first + (stop.min_delta if t.at.best else 0)
        t.at.waited = 0 if improved else t.at.waited + 1
        if value is not None and self.config.train.schedule.policy == "plateau":
            t.plateau.observe(value)
        file = f"best-{t.at.epoch:03}.safetensors"
        ranked = sorted([*t.at.best, (figure, file)], key=lambda item: -item[0])
        dropped = ranked[stop.keep :]
        t.at.best = ranked[: stop.keep]
        if (figure, file) in t.at.best and t.world.main:
            facts = {"epoch": t.at.epoch, "monitor": stop.monitor, "figure": figure, "tasks": [task.to_dict() for task in t.tasks]}
            facts |= {"planes": t.data.train.planes, "counts": train_counts(t.data)}
            write_state(self.folder / file, {f"model.{name}": tensor for name, tensor in t.weights().items()}, facts)
        if t.world.main:
            for _, old in dropped:
                (self.folder / old).unlink(missing_ok=True)
        return f", the best {stop.monitor} so far" if improved and value is not None else ""


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@dataclass(frozen=True, slots=True)
class Finished:
    """What follows a training: figures by split, the files, how far ONNX Runtime is from torch."""

    epoch: int
    figures: dict[str, Any]
    files: tuple[Path, ...]
    onnx_error: float


def finish(folder: Path, device: torch.device) -> Finished:
    """Fit temperatures and thresholds on the validation list; write the bundle, and the report on the test list, else on the validation list."""
    from .bundle import write_bundle
    from .decisions import decide, undecided
    from .report import write_report
    from .trained import trained

    best = trained(folder, device=device)
    config = best.config
    predictions = {split: best.predictions(split) for split in ("val", "test") if getattr(config.data, split) is not None}
    decisions = decide(config, predictions["val"]) if "val" in predictions else undecided(config, best.tasks)
    made = {split: figures(found, decisions, best.facts["counts"]) for split, found in predictions.items()}
    errors = write_bundle(best, decisions, folder / "bundle", made)
    files = [folder / "bundle"]
    if predictions:
        split = list(predictions)[-1]
        files += write_report(best, predictions[split], decisions, split, folder / "report.html")
    return Finished(best.facts["epoch"], made, tuple(files), max(errors.values()))


def dry(config: Config, device: torch.device) -> list[str]:
    """One batch through everything, and what there is to say of it; nothing is written."""
    trainer = Trainer(config, load_data(config), device)
    if config.model.second_stage.method in UNTRAINED:
        return [fit_head(trainer), *_validated(trainer)]
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.step()
    facts = trainer.meter.read()
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    state = sum(t.numel() * t.element_size() for t in optimizer_tensors(trainer.optimizer).values())
    copies = 2 + bool(trainer.ema)
    image = config.data.image
    lines = [f"images {config.data.batch} x {trainer.rows.channels} x {image.height} x {image.width}, {trainer.steps_per_epoch} steps an epoch"]
    for task in trainer.tasks:
        loss, labels = facts["losses"][task.name], facts["labels"][task.name]
        lines.append(f"  {task.name:<16} {task.kind:<10} {task.outputs:>4} outputs, loss {task.loss:<12} {loss:.4f} over {labels:g}")
    lines.append(
        f"memory: weights {weights / 2**20:.1f} MiB x {copies} with gradients{' and their mean' if trainer.ema else ''}, "
        f"optimizer {state / 2**20:.1f} MiB, kept for backward {kept / 2**20:.1f} MiB"
    )
    return lines + _validated(trainer)


def _validated(trainer: Trainer) -> list[str]:
    """The validation list's figures in a line, if there is one."""
    if trainer.val is None:
        return []
    made = figures(trainer.evaluate(trainer.val))
    return [f"validation of {len(trainer.val)} rows: loss {made['loss']:.4f}, score {_short(made['score'])}"]
