"""How the losses of several tasks share one trunk: fixed weights, learned ones, or gradients that do not undo each other.

balancer = make_balancer("pcgrad", tasks)
total = balancer.backward(parts, model)        in place of total.backward(): leaves the gradients where the optimizer looks

`parts` are those of `multi_task_loss`. A task without a label in the step takes no part: its weight is not updated and its gradient does
not count. What learns weights has parameters of its own: `balancer.parameter_groups(lr)`, without decay. With several processes
gradnorm and pcgrad work on the bare model and average over the processes themselves; the other two are plain losses, and DDP does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .heads import MultiTaskModel
from .losses.multi_task import Part
from .tasks import Task, one_of

Parts = Mapping[str, Part]


class Fixed(nn.Module):
    """The sum of the losses by the tasks' own weights; what the others build on."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def backward(self, parts: Parts, model: MultiTaskModel) -> Tensor:
        """Leave the gradients; the weighted sum, detached."""
        total = self.total(parts)
        total.backward()
        return total.detach()

    def total(self, parts: Parts) -> Tensor:
        """The weighted sum, 0-d."""
        return torch.stack([task.weight * parts[task.name].loss for task in self.tasks]).sum()

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied with at present."""
        return {task.name: task.weight for task in self.tasks}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """What the optimizer has to learn besides the model."""
        learned = list(self.parameters())
        return [{"name": "balance", "params": learned, "lr": lr, "weight_decay": 0.0}] if learned else []


class Uncertainty(Fixed):
    """exp(-s) L + s / 2 with a learned s for each task; a task without a label leaves its s alone.

    Kendall, Gal & Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, 2018; for fixed L the best exp(-s) is 1 / (2 L). The sum
    may go below 0: look at the losses, not at it.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))

    def total(self, parts: Parts) -> Tensor:
        """The sum over the tasks that have a label."""
        losses = torch.stack([task.weight * parts[task.name].loss for task in self.tasks])
        terms = (-self.log_variance).exp() * losses + self.log_variance / 2
        return torch.where(_present(parts, self.tasks), terms, 0.0).sum()

    def weights(self) -> dict[str, float]:
        """exp(-s) times the task's own weight."""
        learned = (-self.log_variance.detach()).exp().tolist()
        return {task.name: task.weight * w for task, w in zip(self.tasks, learned, strict=True)}


class GradNorm(Fixed):
    """Weights under which every task's gradient on the trunk's last layer has the size that its speed of learning asks for.

    Chen et al., GradNorm, 2018. G_t = |w_t grad L_t|, target mean(G) r_t^alpha, r_t the loss by what it began with, by their mean; log w takes
    a gradient step on sum |G_t - target| / mean(G), and w is scaled to sum to the number of tasks. The paper steps w itself, which swings where
    one loss is a hundred times the others. A loss begins at its weight times log C, whatever the first batch was.
    """

    def __init__(self, tasks: Sequence[Task], alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(tasks)
        self.alpha, self.lr = alpha, lr
        self.register_buffer("weight", torch.ones(len(self.tasks)))
        self.register_buffer("start", torch.tensor([max(task.weight * first_loss(task), 1e-12) for task in self.tasks]))

    weight: Tensor
    start: Tensor

    def backward(self, parts: Parts, model: MultiTaskModel) -> Tensor:
        """Leave the gradients of the sum under the present weights, then update these."""
        losses = [task.weight * parts[task.name].loss for task in self.tasks]
        last = _last_layer(model)
        norms = torch.stack([_averaged(_flat(torch.autograd.grad(loss, last, retain_graph=True), last)).norm() for loss in losses])
        total = (self.weight * torch.stack(losses)).sum()
        total.backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                _averaged(parameter.grad)
        self.update(norms, _averaged(torch.stack(losses).detach().clone()), _present(parts, self.tasks))
        return total.detach()

    @torch.no_grad()
    def update(self, norms: Tensor, losses: Tensor, present: Tensor) -> None:
        """One step of the weights. All [tasks]: gradient norms of the unweighted losses, the losses, which tasks have a label."""
        scaled = self.weight * norms
        speed = losses / self.start
        mean_speed = _mean_where(speed, present).clamp(min=1e-12)
        target = _mean_where(scaled, present) * (speed / mean_speed) ** self.alpha
        pull = (scaled - target).sign() * scaled / _mean_where(scaled, present).clamp(min=1e-12)
        moved = self.weight * (-self.lr * pull).exp()
        among = moved[present].sum()
        budget = self.weight[present].sum()  # the absent keep theirs, so the sum stays the number of tasks
        self.weight.copy_(torch.where(present, moved * budget / among, self.weight) if bool(present.any()) else self.weight)

    def weights(self) -> dict[str, float]:
        """w times the task's own weight."""
        return {task.name: task.weight * w for task, w in zip(self.tasks, self.weight.tolist(), strict=True)}


class PCGrad(Fixed):
    """Each task's gradient on the trunk loses what points against another's; the heads keep their plain ones.

    Yu et al., Gradient Surgery for Multi-Task Learning, 2020. A backward pass over the trunk for each task.
    """

    def __init__(self, tasks: Sequence[Task], seed: int = 0) -> None:
        super().__init__(tasks)
        self.seed = seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    steps: Tensor

    def backward(self, parts: Parts, model: MultiTaskModel) -> Tensor:
        """Leave the gradients; those of the trunk projected."""
        shared = model.shared_parameters()
        of_trunk = {id(p) for p in shared}
        own = [p for p in model.parameters() if p.requires_grad and id(p) not in of_trunk]
        gradients, heads = [], torch.zeros(sum(p.numel() for p in own), device=own[0].device)
        for task in self.tasks:
            loss = task.weight * parts[task.name].loss
            found = torch.autograd.grad(loss, [*shared, *own], retain_graph=True, allow_unused=True)
            gradients.append(_averaged(_flat(found[: len(shared)], shared)))
            heads += _flat(found[len(shared) :], own)
        generator = torch.Generator().manual_seed(self.seed + int(self.steps))
        self.steps += 1
        _put(project(gradients, generator), shared)
        _put(_averaged(heads), own)
        return self.total(parts).detach()


def project(gradients: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
    """PCGrad's sum of gradients [D]: each loses its part along those it conflicts with, one after another in random order.

    A gradient of zeros, of a task without a label, changes none.
    """
    total = torch.zeros_like(gradients[0])
    for i, gradient in enumerate(gradients):
        kept = gradient
        for j in torch.randperm(len(gradients), generator=generator).tolist():
            other = gradients[j]
            if i != j:
                along = torch.dot(kept, other).clamp(max=0) / torch.dot(other, other).clamp(min=torch.finfo(other.dtype).tiny)
                kept = kept - along * other
        total = total + kept
    return total


def first_loss(task: Task) -> float:
    """What the loss of an untrained head is, about: log C for C classes, log 2 a label."""
    if task.kind == "multiclass" or (task.kind == "age" and task.loss != "ordinal"):
        return math.log(max(task.outputs, 2))
    return math.log(2) * (task.outputs if task.loss == "ordinal" else 1)


BALANCERS: dict[str, type[Fixed]] = {"fixed": Fixed, "gradnorm": GradNorm, "pcgrad": PCGrad, "uncertainty": Uncertainty}


def make_balancer(name: str, tasks: Sequence[Task], **options: Any) -> Fixed:
    """A balancer by name; TaskError if there is none of that name."""
    one_of(name, BALANCERS, "the balancing of tasks")
    return BALANCERS[name](tasks, **options)


def _present(parts: Parts, tasks: Sequence[Task]) -> Tensor:
    return torch.stack([parts[task.name].divisor > 0 for task in tasks])


def _last_layer(model: MultiTaskModel) -> list[Tensor]:
    """The parameters of the trunk's last layer that learns."""
    shared = [(name, p) for name, p in model.trunk.named_parameters() if p.requires_grad]
    place = shared[-1][0].rpartition(".")[0]
    return [p for name, p in shared if name.rpartition(".")[0] == place]


def _mean_where(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, values, 0.0).sum() / present.sum().clamp(min=1)


def _flat(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in zip(gradients, like, strict=True)])


def _put(flat: Tensor, parameters: Sequence[Tensor]) -> None:
    """Add a flat gradient to the parameters' own, as backward does."""
    for part, parameter in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True):
        value = part.view_as(parameter)
        parameter.grad = value.clone() if parameter.grad is None else parameter.grad + value


def _averaged(values: Tensor) -> Tensor:
    """The mean over processes, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values
