"""A run's best weights at work: what `eval`, `thresholds`, `calibrate`, `report` and `export` start from. It needs no training list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prototxt import ConfigError, TrainingError
from prototxt.files import check_file

from ..heads import MultiTaskModel
from ..tasks import Task
from .config import Config, read_config
from .evaluation import Predictions, predict
from .feed import Rows
from .model import Prepare, build_model
from .state import below, read_state
from .tables import load_list


@dataclass(frozen=True, slots=True)
class Trained:
    """The model of a run, with what its checkpoint says: tasks, planes, the training samples of each class, which epoch."""

    folder: Path
    config: Config
    tasks: tuple[Task, ...]
    model: MultiTaskModel
    prepare: Prepare
    device: torch.device
    facts: dict[str, Any]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.facts["planes"]) or self.config.data.image.channels

    def predictions(self, split: str) -> Predictions:
        """What the model says of a list of the config: train, val or test."""
        chosen = {"train": self.config.data.train, "val": self.config.data.val, "test": self.config.data.test}.get(split)
        if chosen is None:
            raise ConfigError(f"{self.folder}: the config has no data.{split}; data.{split}.labels=FILE names one")
        rows = Rows(load_list(self.config, chosen), self.config.data.image, self.tasks, on_error=self.config.data.on_error)
        return predict(self.model, self.prepare, rows, self.tasks, self.config, self.device)


def trained(folder: Path, overrides: Sequence[str] = (), device: torch.device | None = None) -> Trained:
    """The best epoch of a run folder. TrainingError if it has none."""
    device = device or torch.device("cpu")
    config = read_config(check_file(folder / "config.yaml"), overrides)
    found = [(read_state(file), file) for file in sorted(folder.glob("best-*.safetensors"))]
    if not found:
        raise TrainingError(f"{folder}: holds no best-<epoch>.safetensors; has the run ended its first epoch?")
    (tensors, facts), file = max(found, key=lambda item: item[0][1]["figure"])
    tasks = tuple(Task.from_dict(values) for values in facts["tasks"])
    channels = len(facts["planes"]) or config.data.image.channels
    model = build_model(replace(config, model=replace(config.model, start="")), tasks, channels)
    try:
        model.load_state_dict(below(tensors, "model"))
    except RuntimeError as exc:
        raise TrainingError(f"{file}: is not of this config: {str(exc).splitlines()[-1].strip()[:200]}") from exc
    return Trained(folder, config, tasks, model.to(device).eval(), Prepare(config, channels).to(device), device, facts)
