"""Generated images for classes that have few: a conditional GAN for small images, trained on the training fold alone.

rows = fill(images, classes, Settings(steps=600), seed=0)      # to the largest class's count; rows.source says real or gan
"""

from __future__ import annotations

from .fill import Filled, fill, nearest
from .training import Gan, Settings, train_gan

__all__ = ["Filled", "Gan", "Settings", "fill", "nearest", "train_gan"]
