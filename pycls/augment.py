"""Random changes of images, on torchvision.transforms.v2, for any number of channels; and mixing of two images of a batch.

Geometry, noise, blur, occlusion, brightness and contrast act on every channel alike; saturation and hue need three, and are refused else.
Each image draws from a generator of its own, seeded by its place in the epoch: neither worker processes nor a restart change a draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vf

from prototxt import ConfigError

from .classify.config import AugmentConfig

Change = Callable[[Tensor], Tensor]


class Augment:
    """The changes of a config: uint8 [C, H, W] -> the same shape. `strength` scales every amount."""

    def __init__(self, config: AugmentConfig, channels: int, strength: float = 1.0) -> None:
        if channels != 3 and (config.saturation or config.hue):
            raise ConfigError(
                f"augment: saturation and hue are of RGB images, and these have {channels} channels; brightness and contrast work on any"
            )
        _check(config)
        self.changes: tuple[Change, ...] = tuple(_changes(config, channels, strength))

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """The image changed as `seed` draws; torch's global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for change in self.changes:
                image = change(image)
        return image


def _changes(config: AugmentConfig, channels: int, s: float) -> list[Change]:
    made: list[Change] = []
    if config.crop:
        made.append(_RandomCrop(min(config.crop * s, 0.9)))
    if config.flip:
        made.append(v2.RandomHorizontalFlip())
    if config.vertical_flip:
        made.append(v2.RandomVerticalFlip())
    if config.rotation or config.translation or config.zoom:
        shift = min(config.translation * s, 1.0)
        zoom = min(config.zoom * s, 0.9)
        made.append(
            v2.RandomAffine(
                degrees=min(config.rotation * s, 180.0),
                translate=(shift, shift) if shift else None,
                scale=(1 - zoom, 1 + zoom) if zoom else None,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if config.perspective:
        made.append(v2.RandomPerspective(min(config.perspective * s, 1.0), p=1.0))
    if config.saturation or config.hue:
        made.append(v2.ColorJitter(saturation=min(config.saturation * s, 1.0), hue=min(config.hue * s, 0.5)))
    if config.brightness or config.contrast:
        made.append(_Tone(min(config.brightness * s, 1.0), min(config.contrast * s, 1.0)))
    if config.blur:
        made.append(_Blur(config.blur * s))
    if config.noise:
        made.append(_Noise(config.noise * s))
    if config.occlusion:
        made.append(_Occlusion(min(config.occlusion * s, 1.0)))
    return made


def _check(config: AugmentConfig) -> None:
    shares = ("perspective", "translation", "zoom", "occlusion", "brightness", "contrast", "saturation", "crop", "minority")
    limits = {**dict.fromkeys(shares, 1.0), "hue": 0.5, "rotation": 180.0, "noise": 255.0, "blur": 100.0, "strength": 10.0}
    for name, limit in limits.items():
        if not 0 <= getattr(config, name) <= limit:
            raise ConfigError(f"augment.{name} is {getattr(config, name)}; it lies between 0 and {limit:g}")


class _RandomCrop:
    """A part of at least (1 - share) of each side, anywhere, brought back to the size."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        draw = torch.rand(3).tolist()
        keep = 1 - self.share * draw[0]
        h, w = max(1, round(height * keep)), max(1, round(width * keep))
        top, left = int(draw[1] * (height - h + 1)), int(draw[2] * (width - w + 1))
        return vf.resized_crop(image, top, left, h, w, [height, width], antialias=True)


class _Tone:
    """Brightness times 1 +- b; contrast about the image's mean times 1 +- c, each channel about its own."""

    def __init__(self, brightness: float, contrast: float) -> None:
        self.brightness, self.contrast = brightness, contrast

    def __call__(self, image: Tensor) -> Tensor:
        draw = (torch.rand(2) * 2 - 1).tolist()
        values = image.float() * (1 + self.brightness * draw[0])
        mean = values.mean(dim=(-2, -1), keepdim=True)
        return _bytes(mean + (values - mean) * (1 + self.contrast * draw[1]))


class _Blur:
    """A Gaussian of a sigma up to the largest."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, image: Tensor) -> Tensor:
        sigma = float(torch.rand(())) * self.sigma
        if sigma < 0.05:
            return image
        size = 2 * min(int(np.ceil(3 * sigma)), (min(image.shape[-2:]) - 1) // 2) + 1  # the padding is a reflection
        return vf.gaussian_blur(image, [size, size], [sigma, sigma])


class _Noise:
    """Normal noise, of a deviation up to the largest, in steps of brightness."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def __call__(self, image: Tensor) -> Tensor:
        return _bytes(image.float() + torch.randn(image.shape) * (float(torch.rand(())) * self.deviation))


class _Occlusion:
    """A grey rectangle of up to that share of each side, anywhere."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        draw = torch.rand(4).tolist()
        h, w = int(height * self.share * draw[0]), int(width * self.share * draw[1])
        top, left = int(draw[2] * (height - h + 1)), int(draw[3] * (width - w + 1))
        return vf.erase(image, top, left, h, w, torch.full((image.shape[0], 1, 1), 128, dtype=image.dtype))


def _bytes(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Mixture:
    """How a batch is mixed: the partner of each row [N], the share that stays of the first, and cutmix's box (top, left, height, width)."""

    other: Tensor
    share: float
    box: tuple[int, int, int, int] | None

    def images(self, images: Tensor) -> Tensor:
        """Float images [N, C, H, W], mixed."""
        if self.box is None:
            return torch.lerp(images[self.other], images, self.share)
        top, left, height, width = self.box
        mixed = images.clone()
        mixed[..., top : top + height, left : left + width] = images[self.other, :, top : top + height, left : left + width]
        return mixed


class Mix:
    """Mixing of a batch with itself in another order: mixup blends two images, cutmix pastes a rectangle of the second into the first.

    The loss is mixed, not the labels: share * L(a) + (1 - share) * L(b), so that it is right for every loss and for labels that are
    missing in one of the two.
    """

    def __init__(self, kind: str, alpha: float) -> None:
        self.kind, self.beta = kind, torch.distributions.Beta(alpha, alpha)

    def __call__(self, shape: torch.Size) -> Mixture:
        """The mixture of a batch of that shape [N, C, H, W], drawn from torch's generator."""
        share = float(self.beta.sample())
        other = torch.randperm(shape[0])
        if self.kind == "mixup":
            return Mixture(other, share, None)
        h, w = (round(side * (1 - share) ** 0.5) for side in shape[2:])
        draw = torch.rand(2).tolist()
        box = (int(draw[0] * (shape[2] - h + 1)), int(draw[1] * (shape[3] - w + 1)), h, w)
        return Mixture(other, 1 - h * w / (shape[2] * shape[3]), box)


def mixing(config: AugmentConfig) -> Mix | None:
    """The mixing of a config, if it asks for one."""
    return Mix("mixup", config.mixup) if config.mixup else Mix("cutmix", config.cutmix) if config.cutmix else None


def draw_seed(*numbers: int) -> int:
    """One seed of several numbers: the run's seed, the epoch, the position in it."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def minority_rows(classes: Any, present: Any, counts: Any, share: float) -> Any:
    """Rows with a label whose class has fewer than `share` times the samples of the largest: bool [N].

    classes: int [N] of a multi-class task, or 0/1 [N, K] of labels, where the positives count.
    """
    rare = np.asarray(counts) < share * np.max(counts)
    values, there = np.asarray(classes), np.asarray(present)
    if values.ndim == 1:
        return there & rare[np.where(there, values.astype(np.int64), 0)]
    return ((values > 0) & there & rare).any(axis=1)
