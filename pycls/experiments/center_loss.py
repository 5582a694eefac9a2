"""What lambda does to features of two units: the figure of Wen et al. 2016 on real digits.

A net of three convolutions with PReLU and a 2-unit feature learns by L_S + lambda L_C, once for each lambda and seed. Intra over inter
and the silhouette say what the picture shows: intra alone falls mostly because the whole space shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prototxt.files import atomic_path

from ..losses.center import CenterLoss, step
from ..retrieval import Spread, spread
from .digits import digits, split

LAMBDAS = (0.001, 0.01, 0.1, 1.0)
EPOCHS, BATCH, RATE, MOMENTUM, CLIP = 35, 64, 0.05, 0.9, 5.0


class FeatureNet(nn.Module):
    """Images [N, 1, 8, 8] -> features [N, 2] and logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.PReLU()),
            *(nn.Conv2d(16, 32, 3, 2, 1), nn.PReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.PReLU()),
            *(nn.Flatten(), nn.Linear(64 * 2 * 2, 2)),
        )
        self.classifier = nn.Linear(2, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both, for both losses."""
        features = self.trunk(x)
        return features, self.classifier(features)


@dataclass(frozen=True)
class Panel:
    """One trained net, seen through its test rows."""

    weight: float
    seed: int
    features: Tensor
    classes: Tensor
    centers: Tensor
    accuracy: float
    silhouette: float
    spread: Spread


def trained(weight: float, seed: int, epochs: int = EPOCHS) -> Panel:
    """Train with lambda `weight`; the seed decides split, order and first values."""
    from sklearn.metrics import silhouette_score

    images, classes = digits()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    train, test = split(classes, 0.7, generator)
    net, centers = FeatureNet(), CenterLoss(10, 2)
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=generator)].split(BATCH):
            features, logits = net(images[rows])
            loss = F.cross_entropy(logits, classes[rows]) + weight * centers(features, classes[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            step(optimizer, centers)
    with torch.no_grad():
        features, logits = net.eval()(images[test])
    accuracy = float((logits.argmax(1) == classes[test]).float().mean())
    silhouette = float(silhouette_score(features.numpy(), classes[test].numpy()))
    return Panel(weight, seed, features, classes[test], centers.centers.clone(), accuracy, silhouette, spread(features, classes[test]))


@dataclass(frozen=True)
class Outcome:
    """Every panel of the run."""

    panels: tuple[Panel, ...]

    def __bool__(self) -> bool:
        """Intra over inter falls and the silhouette rises with each lambda, in the means over seeds; and no class met another."""
        ratios, silhouettes = self._means(lambda p: p.spread.ratio), self._means(lambda p: p.silhouette)
        apart = all(torch.pdist(p.centers).min() > 0 for p in self.panels)
        return apart and _falls(ratios) and _falls([-s for s in silhouettes])

    def seeds_that_agree(self) -> int:
        """Seeds in which both are monotone on their own."""
        agree = 0
        for seed in {p.seed for p in self.panels}:
            mine = sorted((p for p in self.panels if p.seed == seed), key=lambda p: p.weight)
            agree += _falls([p.spread.ratio for p in mine]) and _falls([-p.silhouette for p in mine])
        return agree

    def text(self) -> str:
        """A Markdown table: mean and standard deviation over the seeds."""
        rows = ["| lambda | accuracy | intra | inter | intra / inter | silhouette |", "|---|---|---|---|---|---|"]
        columns: list[Callable[[Panel], float]] = [
            lambda p: p.accuracy,
            lambda p: p.spread.intra,
            lambda p: p.spread.inter,
            lambda p: p.spread.ratio,
            lambda p: p.silhouette,
        ]
        for weight in self._weights():
            values = [torch.tensor([read(p) for p in self.panels if p.weight == weight]) for read in columns]
            cells = [f"{float(v.mean()):.3f} ± {float(v.std(correction=0)):.3f}" for v in values]
            rows.append(f"| {weight:g} | " + " | ".join(cells) + " |")
        seeds = len({p.seed for p in self.panels})
        rows.append(f"\n{seeds} seeds (split, order, first values); ratio and silhouette are monotone in {self.seeds_that_agree()} of {seeds}")
        return "\n".join(rows)

    def facts(self) -> list[dict[str, float]]:
        """One flat record a panel, for JSON."""
        return [
            {
                "lambda": p.weight,
                "seed": p.seed,
                "accuracy": p.accuracy,
                "intra": p.spread.intra,
                "inter": p.spread.inter,
                "ratio": p.spread.ratio,
                "silhouette": p.silhouette,
            }
            for p in self.panels
        ]

    def _weights(self) -> list[float]:
        return sorted({p.weight for p in self.panels})

    def _means(self, read: Callable[[Panel], float]) -> list[float]:
        return [sum(map(read, mine)) / len(mine) for w in self._weights() if (mine := [p for p in self.panels if p.weight == w])]


def run(weights: Sequence[float] = LAMBDAS, seeds: int = 5, epochs: int = EPOCHS, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train every lambda with every seed; `tell` hears of each."""
    panels = []
    for seed in range(seeds):
        for weight in weights:
            panels.append(trained(weight, seed, epochs))
            tell(f"seed {seed}, lambda {weight:g}: accuracy {panels[-1].accuracy:.3f}, intra / inter {panels[-1].spread.ratio:.3f}")
    return Outcome(tuple(panels))


def draw(panels: Sequence[Panel], path: str | Path) -> None:
    """A column a lambda: on the same axes above, in units of the mean distance between classes below. PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(panels), 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels), squeeze=False)
    for above, below, panel in zip(axes[0], axes[1], panels, strict=True):
        middle = panel.features.mean(0)
        _scatter(above, panel.features, panel.centers, panel.classes)
        unit = panel.spread.inter
        _scatter(below, (panel.features - middle) / unit, (panel.centers - middle) / unit, panel.classes)
        above.set_title(f"λ = {panel.weight:g}", fontsize=11)
        below.set_title(f"intra / inter {panel.spread.ratio:.3f}, silhouette {panel.silhouette:.2f}", fontsize=9)
    reach = 1.08 * float(max(p.features.abs().max() for p in panels))
    for ax in axes[0]:
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    reach = 1.08 * float(max(((p.features - p.features.mean(0)) / p.spread.inter).abs().max() for p in panels))
    for ax in axes[1]:
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes[0][0].set_ylabel("the same axes")
    axes[1][0].set_ylabel("over the distance between classes")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, markerscale=2, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=72, format="png")


def _scatter(ax: Any, features: Tensor, centers: Tensor, classes: Tensor) -> None:
    from matplotlib import colormaps

    for c in range(10):
        mine = features[classes == c]
        ax.scatter(mine[:, 0], mine[:, 1], s=5, color=colormaps["tab10"](c), label=str(c), linewidths=0)
    ax.scatter(centers[:, 0], centers[:, 1], s=14, color="white", edgecolors="black", linewidths=0.8, zorder=3)
    ax.tick_params(labelsize=7)


def _falls(values: Sequence[float]) -> bool:
    return all(b < a for a, b in pairwise(values))
