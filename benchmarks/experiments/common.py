"""What the experiments share: real digits from packages, small trunks, one training loop, tables of mean and spread over seeds.

Every method of a table sees the same split, the same steps, the same batch size and the same optimizer in a seed; a seed changes split,
initial values and order. `wins` counts the seeds in which a method is better than another.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/experiments/x.py` finds the packages of the checkout

import converters  # noqa: E402
from pycls import MultiTaskModel, Task, attach_heads, multi_task_loss  # noqa: E402
from pycls.balancing import Fixed  # noqa: E402
from pycls.losses.multi_task import Batch  # noqa: E402

SEEDS = range(5)
LOOPS = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 2, 1])  # closed loops of a handwritten digit; its 4 is open


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits: images [N, 1, 8, 8] in 0..1, classes [N]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(data.target)


def as_mnist(images: Tensor) -> Tensor:
    """Digits of 8 x 8 as LeNet wants them: 20 x 20 in the middle of 28 x 28, (pixel - 26) / 256."""
    return (255 * F.pad(F.interpolate(images, size=20, mode="bilinear"), (4, 4, 4, 4)) - 26) / 256


def four_tasks(classes: Tensor) -> dict[str, Tensor]:
    """Targets of the four tasks on one image: which digit, odd, five or more, how many loops."""
    return {"digit": classes, "odd": (classes % 2).float(), "big": (classes >= 5).float(), "loops": LOOPS[classes]}


def mosaics(images: Tensor, classes: Tensor, n: int, shares: Sequence[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mosaics of 2 x 2 digits [n, 1, 16, 16], and which digits they hold [n, 10]; digits are drawn by `shares`."""
    kinds = torch.multinomial(torch.tensor(list(shares)), 4 * n, replacement=True, generator=generator)
    picks = torch.empty_like(kinds)
    for digit in range(10):
        pool, here = (classes == digit).nonzero()[:, 0], (kinds == digit).nonzero()[:, 0]
        picks[here] = pool[torch.randint(len(pool), (len(here),), generator=generator)]
    tiles = images[picks].view(n, 2, 2, 8, 8)
    labels = torch.zeros(n, 10).scatter(1, kinds.view(n, 4), 1.0)
    return tiles.permute(0, 1, 3, 2, 4).reshape(n, 1, 16, 16), labels


def small_net(size: int = 8, width: int = 16) -> nn.Sequential:
    """Two convolutions and a pooling for images of 8 or 16 pixels; the features are its last module's."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(2 * width * (size // 2) ** 2, 64), nn.ReLU(),
    )  # fmt: skip


def small_model(tasks: Sequence[Task], size: int = 8, width: int = 16) -> MultiTaskModel:
    """Heads for the tasks on a small net."""
    return attach_heads(small_net(size, width), at="7", tasks=tasks, input_shape=(1, size, size))


def lenet_weights() -> Path | None:
    """The trained weights that lie beside LeNet's prototxt, if they do."""
    path = ROOT / "prototxt/nets/lenet.caffemodel"
    return path if path.exists() else None


def lenet_model(tasks: Sequence[Task]) -> MultiTaskModel:
    """Heads for the tasks on the LeNet that ships, converted from Caffe."""
    net = converters.load(ROOT / "prototxt/nets/lenet.prototxt", lenet_weights(), phase="TRAIN")
    return attach_heads(net, at="ip1", tasks=tasks)


@dataclass
class Plan:
    """How to train: the same for every method of a table."""

    steps: int = 300
    batch: int = 64
    lr: float = 1e-3
    draw: Callable[[int], Sequence[int]] | None = None  # an epoch's indices; by default all, shuffled
    change: Callable[[Tensor], Tensor] = field(default=lambda x: x)  # augmentation
    balancer: Fixed | None = None  # in place of a plain backward


def fit(model: MultiTaskModel, x: Tensor, targets: Batch, masks: Batch, plan: Plan, seed: int) -> MultiTaskModel:
    """Train with Adam for plan.steps batches; the model, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    learned = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    optimizer = torch.optim.Adam(learned + (plan.balancer.parameter_groups(10 * plan.lr) if plan.balancer else []), lr=plan.lr)
    order: list[int] = []
    epoch = 0
    model.train()
    for _ in range(plan.steps):
        while len(order) < plan.batch:
            order += list(plan.draw(epoch)) if plan.draw else torch.randperm(len(x), generator=generator).tolist()
            epoch += 1
        rows, order = torch.tensor(order[: plan.batch]), order[plan.batch :]
        optimizer.zero_grad()
        out = model(plan.change(x[rows]))
        total, parts = multi_task_loss(out, {t: v[rows] for t, v in targets.items()}, {t: m[rows] for t, m in masks.items()}, model.tasks)
        if plan.balancer is None:
            total.backward()
        else:
            plan.balancer.backward(parts, model)
        optimizer.step()
    return model.eval()


def predict(model: MultiTaskModel, x: Tensor) -> dict[str, Tensor]:
    """Logits by task, without gradients."""
    with torch.no_grad():
        parts = [model(piece) for piece in x.split(512)]
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def split(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of a random part and of the rest."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: int(share * n)], order[int(share * n) :]


Results = dict[str, list[dict[str, float]]]  # {method: one dict of figures a seed}


def over_seeds(run: Callable[[int], Mapping[str, Mapping[str, float]]], seeds: Sequence[int] = SEEDS) -> Results:
    """The figures of `run` by method, seed by seed; progress goes to stderr."""
    results: Results = {}
    start = time.process_time()
    for i, seed in enumerate(seeds, 1):
        for method, figures in run(seed).items():
            results.setdefault(method, []).append(dict(figures))
        print(f"seed {i} of {len(seeds)}, {time.process_time() - start:.0f} s of CPU", file=sys.stderr, flush=True)
    return results


def table(title: str, results: Results, baseline: str, metric: str, *, less: bool = False) -> None:
    """Print mean +- standard deviation, and the seeds in which a method is better than the baseline in a metric; `less` is better there."""
    names = list(next(iter(results.values()))[0])
    print(f"\n{title}; {len(results[baseline])} seeds\n")
    print(f"| method | {' | '.join(names)} | seeds {'below' if less else 'above'} {baseline} in {metric} |\n|{'---|' * (len(names) + 2)}")
    for method, runs in results.items():
        cells = [spread([run[name] for run in runs]) for name in names]
        print(f"| {method} | {' | '.join(cells)} | {'-' if method == baseline else wins(results, method, baseline, metric, less=less)} |")


def spread(values: Sequence[float]) -> str:
    """`.948 +- .008`; what has no meaning in some seed says so."""
    known = [v for v in values if v == v]
    if not known:
        return "NA"
    sd = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{np.mean(known):.3f} +- {sd:.3f}" + (f" ({len(known)} seeds)" if len(known) < len(values) else "")


def wins(results: Results, method: str, other: str, metric: str, *, less: bool = False) -> str:
    """`4/5`, and how many are ties."""
    pairs = [(a[metric], b[metric]) for a, b in zip(results[method], results[other], strict=True)]
    better, ties = sum(a < b if less else a > b for a, b in pairs), sum(a == b for a, b in pairs)
    return f"{better}/{len(pairs)}" + (f", {ties} ties" if ties else "")
