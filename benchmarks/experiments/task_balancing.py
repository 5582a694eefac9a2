"""Four tasks on one digit; in the second table the loss of one of them counts a hundredfold. Half of the labels are missing at random."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from common import Plan, digits, fit, four_tasks, over_seeds, predict, small_model, split, table
from missing_labels import TASKS, accuracy, removed

from pycls.balancing import BALANCERS, make_balancer

STEPS = 200


def run(seed: int, factor: float) -> dict[str, dict[str, float]]:
    x, classes = digits()
    train, test = split(len(x), 0.6, seed)
    targets, held_out = four_tasks(classes[train]), four_tasks(classes[test])
    masks = removed(targets, 0.5, True, torch.Generator().manual_seed(seed))
    tasks = tuple(replace(t, weight=factor if t.name == "odd" else 1.0) for t in TASKS)
    found = {}
    for name in BALANCERS:
        torch.manual_seed(seed)
        made = predict(fit(small_model(tasks, width=8), x[train], targets, masks, Plan(STEPS, balancer=make_balancer(name, tasks)), seed), x[test])
        each = {t.name: accuracy(made, held_out, (t,)) for t in tasks}
        found[name] = {"mean accuracy": sum(each.values()) / len(each), **each}
    return found


def main() -> None:
    torch.set_num_threads(1)
    for factor in (1.0, 100.0):
        table(f"the loss of `odd` times {factor:g}", over_seeds(partial(run, factor=factor)), "fixed", "mean accuracy")


if __name__ == "__main__":
    main()
