"""The second stage of a run for unbalanced data, by config: `pycls.decoupling` on the weights of a first run.

crt   a new head, lws   a factor a class: trained as ever, on the frozen trunk; with a class-balanced sampler, as they are meant
tau   the head's weights by their norms ^ tau, tau of the best balanced accuracy on the validation list
ncm   the means of the training list's features in place of the head
"""

from __future__ import annotations

import torch
from torch import Tensor

from prototxt import ConfigError

from .. import decoupling
from ..distributed import World
from .engine import Trainer
from .feed import Rows, batches, testing_plan, to_device
from .model import stage_task

UNTRAINED = ("tau", "ncm")
TAUS = tuple(i / 20 for i in range(41))  # 0 to 2


def fit_head(trainer: Trainer) -> str:
    """Fit the head of `tau` or `ncm`; what to say of it. ConfigError for `tau` without a validation list. Every process does the same."""
    stage, model = trainer.config.model.second_stage, trainer.model
    name = stage_task(stage, trainer.tasks)
    if stage.method == "ncm":
        config = trainer.config
        rows = Rows(trainer.data.train, config.data.image, trainer.tasks, on_error=config.data.on_error)
        features, classes = features_of(trainer, rows, name)
        decoupling.nearest_means(model, name, features, classes)
        return f"{name}: the means of {len(classes)} training rows are the head"
    if trainer.val is None:
        raise ConfigError("model.second_stage.method tau: tau is picked on the validation list, and the config has no data.val")
    features, classes = features_of(trainer, trainer.val, name)
    tau, figure = best_tau(decoupling.linear_head(model, name).weight, features, classes)
    decoupling.normalize(model, name, tau)
    return f"{name}: tau {tau:g}, whose balanced accuracy on the validation list is the best of {len(TAUS)}, {figure:.4f}"


@torch.no_grad()
def best_tau(weight: Tensor, features: Tensor, classes: Tensor) -> tuple[float, float]:
    """The tau of TAUS, the smallest of equals, and its balanced accuracy: weight [C, D], features [N, D], classes [N]."""
    hot = torch.nn.functional.one_hot(classes, len(weight)).to(features.dtype)
    found = []
    for tau in TAUS:
        answers = (features @ (weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau).T).argmax(1)
        recall = (hot * (answers == classes)[:, None]).sum(0) / hot.sum(0)
        found.append((float(recall.nanmean()), -tau))
    figure, negative = max(found)
    return -negative, figure


def features_of(trainer: Trainer, rows: Rows, name: str) -> tuple[Tensor, Tensor]:
    """What the head of a task reads of every row that has a label, [N, D], and its classes [N]."""
    model, config = trainer.model, trainer.config
    model.eval()
    features, classes = [], []
    with torch.no_grad():
        for batch in batches(rows, testing_plan(len(rows), config.data.batch, World()), config.data.workers):
            if len(batch):
                here = to_device(batch, trainer.device)
                known = here.masks[name]
                features.append(model.features(trainer.prepare(here.images))[name][known])
                classes.append(here.targets[name][known])
    model.train()
    return torch.cat(features), torch.cat(classes)
