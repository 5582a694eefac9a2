"""Each change of `augment` on one image: what a config's numbers look like before anything trains on them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from prototxt import DataError
from prototxt.files import atomic_path

from ..augment import Augment
from ..classify.config import AugmentConfig, ImageConfig
from ..classify.images import load_image

SIDE = 112  # of a panel
CHANGES = {
    "as it is": AugmentConfig(),
    "rotation 30": AugmentConfig(rotation=30),
    "perspective 0.5": AugmentConfig(perspective=0.5),
    "translation 0.25": AugmentConfig(translation=0.25),
    "zoom 0.4": AugmentConfig(zoom=0.4),
    "crop 0.5": AugmentConfig(crop=0.5),
    "noise 20": AugmentConfig(noise=20),
    "blur 3": AugmentConfig(blur=3),
    "occlusion 0.4": AugmentConfig(occlusion=0.4),
    "brightness 0.6": AugmentConfig(brightness=0.6),
    "contrast 0.8": AugmentConfig(contrast=0.8),
    "saturation 0.9, hue 0.2": AugmentConfig(saturation=0.9, hue=0.2),
}


def picture(path: str | Path | None) -> Tensor:
    """The middle of an image file, or of scikit-learn's photo of a flower: bytes [3, SIDE, SIDE]."""
    if path is not None:
        return torch.from_numpy(load_image([path], ImageConfig(height=SIDE, width=SIDE, resize="crop")))
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as exc:
        raise DataError("name an image; without one the photo is scikit-learn's: python -m pip install scikit-learn") from exc
    from torchvision.transforms.v2 import functional as vf

    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).movedim(-1, 0)
    return vf.center_crop(vf.resize(photo, [SIDE]), [SIDE, SIDE])


def grid(path: str | Path | None, output: str | Path, *, seed: int = 0) -> None:
    """A panel a change, in two rows. PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = picture(path)
    figure = Figure(figsize=(1.3 * len(CHANGES) / 2, 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (name, config) in zip(figure.subplots(2, len(CHANGES) // 2).flat, CHANGES.items(), strict=True):
        ax.imshow(Augment(config, 3)(image, seed).movedim(0, -1).numpy())
        ax.set_title(name, fontsize=8)
        ax.set_axis_off()
    with atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=60, format="png")
