"""Training of the conditional GAN: hinge loss, balanced classes, DiffAugment, an averaged generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prototxt import DataError

from .augmentation import diff_augment
from .networks import Discriminator, Encoder, Generator, hinge, noise_for


@dataclass(frozen=True)
class Settings:
    """How to train. `style` also learns to redraw an image of one class in the manner of another."""

    steps: int = 600
    batch: int = 64
    width: int = 64
    rate: float = 1e-3
    ema: float = 0.99
    policy: tuple[str, ...] = ("translation", "cutout")
    style: bool = False
    reconstruction: float = 10.0


@dataclass(frozen=True)
class Gan:
    """A trained generator, averaged over its steps, and the encoder where styles were learned."""

    generator: Generator
    encoder: Encoder | None

    @torch.no_grad()
    def make(self, classes: Tensor) -> Tensor:
        """New images of the classes [N], from torch's generator."""
        self.generator.eval()
        return self.generator(self.generator.content(noise_for(self.generator, len(classes), classes.device)), classes)

    @torch.no_grad()
    def restyle(self, images: Tensor, classes: Tensor) -> Tensor:
        """What is on the images [N, C, S, S], in the manner of the classes [N]."""
        if self.encoder is None:
            raise DataError("this GAN has learned no styles; train it with style on")
        return self.generator.eval()(self.encoder.eval()(images), classes)


def train_gan(images: Tensor, classes: Tensor, settings: Settings, *, seed: int = 0, tell: Callable[[int, float, float], None] | None = None) -> Gan:
    """Train on images [N, C, S, S] in 0..1 of the training fold; classes are drawn evenly. `tell` hears (step, loss of D, loss of G).

    torch's generator is left as it was.
    """
    _check(images, classes)
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _trained(images, classes, settings, tell)


def _trained(images: Tensor, classes: Tensor, settings: Settings, tell: Callable[[int, float, float], None] | None) -> Gan:
    count, channels, size = int(classes.max()) + 1, images.shape[1], images.shape[2]
    made = {"width": settings.width}
    generator = Generator(count, channels, size, **made).to(images.device)
    critic = Discriminator(count, channels, size, **made).to(images.device)
    encoder = Encoder(channels, size, **made).to(images.device) if settings.style else None
    players = [generator, *([encoder] if encoder else [])]
    averaged = [AveragedModel(p, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True) for p in players]
    to_make = torch.optim.Adam([p for m in players for p in m.parameters()], settings.rate, betas=(0.0, 0.9))
    to_judge = torch.optim.Adam(critic.parameters(), settings.rate, betas=(0.0, 0.9))
    draw = _even(classes)
    for n in range(settings.steps):
        real, wanted = images[rows := draw(settings.batch)], classes[rows]
        with torch.no_grad():
            fake, styles = _made(generator, encoder, real, wanted)
        judged = hinge(critic(diff_augment(real, settings.policy), wanted), critic(diff_augment(fake, settings.policy), styles))
        _step(to_judge, judged)
        fake, styles = _made(generator, encoder, real, wanted)
        loss = -critic(diff_augment(fake, settings.policy), styles).mean()
        if encoder is not None:
            loss = loss + settings.reconstruction * F.l1_loss(generator(encoder(real), wanted), real)
        _step(to_make, loss)
        for average, player in zip(averaged, players, strict=True):
            average.update_parameters(player)
        if tell:
            tell(n + 1, float(judged.detach()), float(loss.detach()))
    kept: list[nn.Module] = [average.module for average in averaged]
    return Gan(kept[0], kept[1] if encoder else None)  # type: ignore[arg-type]


def _made(generator: Generator, encoder: Encoder | None, real: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Images out of noise; with an encoder half of them are real ones in the manner of another's class."""
    content = generator.content(noise_for(generator, len(real), real.device))
    if encoder is not None:
        half = len(real) // 2
        content = torch.cat([encoder(real[:half]), content[half:]])
        classes = torch.cat([classes[:half][torch.randperm(half, device=real.device)], classes[half:]])
    return generator(content, classes), classes


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _even(classes: Tensor) -> Callable[[int], Tensor]:
    """Draws rows so that each class that is there is as likely."""
    counts = classes.bincount()
    weights = 1.0 / counts[classes]
    return lambda n: torch.multinomial(weights, n, replacement=True)


def _check(images: Tensor, classes: Tensor) -> None:
    if images.ndim != 4 or images.shape[2] != images.shape[3] or len(images) != len(classes) or not len(images):
        raise DataError(f"the GAN takes square images [N, C, S, S] and a class each, not {list(images.shape)} and {list(classes.shape)}")
    if not 0 <= float(images.min()) <= float(images.max()) <= 1 or int(classes.min()) < 0:
        raise DataError("the GAN takes values in 0..1 and known classes; scale the images, and leave rows without a class out")
