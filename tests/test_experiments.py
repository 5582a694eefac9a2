"""The lambda figure: what it claims, on a short run, and the picture; the panels of augmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pycls.experiments.center_loss import Outcome, draw, run
from pycls.experiments.digits import digits, split
from pycls.retrieval import Spread


def test_lambda_draws_classes_together(tmp_path: Path) -> None:
    outcome = run((0.001, 1.0), seeds=1, epochs=10)
    weak, strong = outcome.panels
    assert strong.spread.ratio < 0.9 * weak.spread.ratio
    assert strong.silhouette > weak.silhouette + 0.05
    assert min(weak.accuracy, strong.accuracy) > 0.75, "ten classes on a plane, far above 0.1"
    assert outcome
    assert outcome.seeds_that_agree() == 1
    assert "| 0.001 |" in outcome.text()
    draw(outcome.panels, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_an_outcome_that_is_not_monotone_is_false() -> None:
    outcome = run((0.001, 1.0), seeds=1, epochs=1)
    weak, strong = outcome.panels
    better, worse = Spread(1, 10), Spread(2, 10)
    assert Outcome((replace(weak, spread=worse, silhouette=0.1), replace(strong, spread=better, silhouette=0.2)))
    assert not Outcome((replace(weak, spread=better, silhouette=0.1), replace(strong, spread=worse, silhouette=0.2)))
    assert not Outcome((replace(weak, spread=worse, silhouette=0.2), replace(strong, spread=better, silhouette=0.1)))
    assert not Outcome((replace(weak, spread=worse, silhouette=0.1), replace(strong, spread=better, silhouette=0.2, centers=torch.zeros(3, 2))))


def test_a_split_keeps_the_shares_of_classes() -> None:
    classes = digits()[1]
    first, rest = split(classes, 0.7, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([first, rest]).tolist()) == list(range(len(classes)))
    assert ((classes[first].bincount() / classes.bincount() - 0.7).abs() < 0.01).all()


def test_each_augmentation_has_its_panel(tmp_path: Path) -> None:
    from pycls.augment import Augment
    from pycls.experiments.augmentation import CHANGES, grid, picture

    image = picture(None)
    changed = {name: Augment(config, 3)(image, 0) for name, config in CHANGES.items()}
    assert changed.pop("as it is").equal(image)
    assert all(c.shape == image.shape and not c.equal(image) for c in changed.values())
    grid(None, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as drawn:
        assert drawn.width > drawn.height
