"""From logits to decisions: a temperature for each task, a threshold for each label, both of the validation list and never of the test list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..calibration import fit_temperature
from ..losses.multi_task import meant, multi_task_loss
from ..metrics import evaluate
from ..tasks import Task
from ..thresholds import match_rate, tune
from .config import Config, TaskConfig
from .evaluation import Predictions
from .images import Array

MAIN = {"multiclass": "macro_f1_seen", "binary": "AP", "multilabel": "mAP", "age": "MAE"}  # the figure that a task is judged by


@dataclass(frozen=True, slots=True)
class Decision:
    """How a task's logits are read: divided by `temperature`, then a label is on at its threshold; below `abstain` the answer is NA."""

    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    abstain: float = 0.0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """The decision of `to_dict`."""
        return cls(values["temperature"], tuple(values["thresholds"]), values["abstain"], tuple(values["notes"]))

    def calibrated(self, logits: Tensor) -> Tensor:
        """Logits of which the probabilities can be believed."""
        return logits / self.temperature

    def threshold(self) -> float | Tensor:
        """What `metrics.evaluate` compares probabilities with."""
        return torch.tensor(self.thresholds, dtype=torch.float64) if self.thresholds else 0.5


Decisions = dict[str, Decision]


def decide(config: Config, predictions: Predictions, *, calibrate: bool = True, keep: Mapping[str, Decision] | None = None) -> Decisions:
    """Temperatures (or those of `keep`) and thresholds by task, fitted on these predictions; a task without a label there keeps 1 and 0.5."""
    made: Decisions = {}
    for task in predictions.tasks:
        chosen = config.tasks.get(task.name, TaskConfig())
        before = (keep or {}).get(task.name, Decision(abstain=chosen.abstain))
        logits, labels, mask = tensors(predictions, task)
        if task.kind == "age" or not bool(mask.any()):
            note = () if task.kind == "age" else ("no label on the validation list: temperature 1, threshold 0.5",)
            made[task.name] = Decision(abstain=before.abstain, notes=note)
            continue
        temperature = float(fit_temperature(task, logits, labels, mask)) if calibrate and task.activation != "exp" else before.temperature
        thresholds, notes = _thresholds(task, chosen, logits / temperature, labels, mask)
        made[task.name] = Decision(temperature, thresholds, before.abstain, notes)
    return made


def undecided(config: Config, tasks: Sequence[Task]) -> Decisions:
    """Decisions without a validation list: temperature 1, threshold 0.5, and what the config says of abstaining."""
    return {task.name: Decision(abstain=config.tasks.get(task.name, TaskConfig()).abstain) for task in tasks}


def _thresholds(task: Task, chosen: TaskConfig, logits: Tensor, labels: Tensor, mask: Tensor) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Thresholds of a binary or multi-label task, and what is to be said of them."""
    if task.kind not in ("binary", "multilabel") or chosen.threshold == "fixed":
        return (), ()
    scores = task.probabilities(logits)
    labels, mask = labels.reshape(scores.shape), mask.reshape(scores.shape)
    if chosen.threshold == "rate":
        rates = [float(labels[mask[:, k], k].mean()) if bool(mask[:, k].any()) else 0.5 for k in range(scores.shape[1])]
        return tuple(float(match_rate(scores[:, k], rate)) for k, rate in enumerate(rates)), ()
    values, found = tune(scores, labels, mask)
    names = task.names[1:] if task.kind == "binary" else task.names
    unsound = [name for name, one in zip(names, found, strict=True) if not one.sound]
    return tuple(values.tolist()), (f"no positive on the validation list, threshold 0.5: {', '.join(unsound)}",) if unsound else ()


def tensors(predictions: Predictions, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and mask of a task, under its meaning of NA."""
    logits = torch.from_numpy(np.ascontiguousarray(predictions.logits[task.name])).double()
    labels, mask = torch.from_numpy(predictions.targets[task.name]), torch.from_numpy(predictions.masks[task.name])
    meaning, kept = meant(task, labels, mask)
    return logits, meaning, torch.ones_like(mask) if kept is None else kept


def figures(
    predictions: Predictions, decisions: Mapping[str, Decision] | None = None, counts: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Any]:
    """Every figure of every task, the loss, and the score: the mean over tasks of what each is judged by, an age by 1 - MAE / span."""
    made: dict[str, Any] = {}
    for task in predictions.tasks:
        decision = (decisions or {}).get(task.name, Decision())
        logits, labels, mask = tensors(predictions, task)
        made[task.name] = evaluate(
            task, decision.calibrated(logits), labels, mask, threshold=decision.threshold(), train_counts=(counts or {}).get(task.name)
        )
    scores = [s for task in predictions.tasks if (s := score(task, made[task.name]["metrics"])) is not None]
    return {"tasks": made, "loss": _loss(predictions), "score": sum(scores) / len(scores) if scores else None, "rows": len(predictions)}


def answers(task: Task, decision: Decision, logits: Tensor) -> tuple[Array, Array, Array]:
    """What a task's logits [N, outputs] say: values and mask as a label table has them, and how sure each is, all of the table's shape.

    An answer less sure than `abstain` is NA; so is the class that `na: class` adds.
    """
    probabilities = task.probabilities(decision.calibrated(logits))
    if task.kind == "age":
        years = task.years(probabilities)
        return years.float().numpy(), np.ones(len(years), dtype=bool), np.full(len(years), np.nan)
    if task.kind == "multiclass":
        top, index = probabilities.max(1)
        present = (top >= decision.abstain) & (index < len(task.classes))
        return torch.where(present, index, 0).numpy(), present.numpy(), top.numpy()
    on = probabilities >= decision.threshold()
    sure = torch.where(on, probabilities, 1 - probabilities)
    values, present = on.float(), sure >= decision.abstain
    if task.kind == "binary":
        values, present, sure = values[:, 0], present[:, 0], sure[:, 0]
    return (values * present).numpy(), present.numpy(), sure.numpy()


def score(task: Task, metrics: Mapping[str, Any]) -> float | None:
    """What a task is judged by, larger for better; None without labels."""
    value = metrics.get(MAIN[task.kind])
    return None if value is None else 1 - value / (task.high - task.low) if task.kind == "age" else float(value)


def _loss(predictions: Predictions) -> float:
    def by_task(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}

    loss, _ = multi_task_loss(by_task(predictions.logits), by_task(predictions.targets), by_task(predictions.masks), predictions.tasks)
    return float(loss)


def monitored(name: str, made: Mapping[str, Any]) -> float | None:
    """The figure of a name: loss, score, or task/metric. ConfigError with the names that there are."""
    from prototxt import ConfigError

    from ..labels import suggest

    if name in ("loss", "score"):
        return made[name]  # type: ignore[no-any-return]
    task, _, metric = name.partition("/")
    known = [f"{t}/{m}" for t, facts in made["tasks"].items() for m in facts["metrics"]]
    if name not in known:
        raise ConfigError(f"train.stop.monitor is {name!r}; it is loss, score, or a task's figure{suggest(name, known)}")
    return made["tasks"][task]["metrics"][metric]  # type: ignore[no-any-return]
