"""The GAN's parts: augmentation that is the same law for both players, conditions that reach the output, rows that are counted and marked."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from prototxt import DataError
from pycls.gan import Settings, fill, nearest, train_gan
from pycls.gan.augmentation import color, cutout, diff_augment, translation
from pycls.gan.networks import Discriminator, Encoder, Generator, hinge, levels_of

N, C, S = 6, 3, 16


def some_images(n: int = N, size: int = S, channels: int = C) -> Tensor:
    """[n, channels, size, size] in 0..1."""
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(3))


def test_augmentations_do_what_they_say() -> None:
    torch.manual_seed(0)
    x = some_images(n=64)
    moved = translation(x)
    assert all(any(image.equal(m) for m in _moves(whole)) for image, whole in zip(moved, x, strict=True))
    assert not moved.equal(x)
    holed = cutout(x)
    cut = (holed == 0).all(1)
    assert cut.flatten(1).sum(1).max() == (S // 2) ** 2
    assert cut.any((1, 2)).all()
    assert holed.equal(x * ~cut[:, None])
    grey = some_images(channels=1)
    changed = color(grey).flatten(1)
    together = torch.stack([grey.flatten(1), changed], 1)
    assert all(torch.corrcoef(pair)[0, 1] > 0.9999 for pair in together), "a grey image is only moved and stretched"
    x.requires_grad_(True)
    diff_augment(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


def _moves(image: Tensor, reach: int = 2) -> list[Tensor]:
    """Every translation by whole pixels, zeros behind."""
    padded = torch.nn.functional.pad(image, (reach,) * 4)
    return [padded[:, y : y + S, x : x + S] for y in range(2 * reach + 1) for x in range(2 * reach + 1)]


@pytest.mark.parametrize("size", [8, 12, 28, 64])
def test_shapes_of_the_players(size: int) -> None:
    images, classes = some_images(size=size), torch.arange(N) % 4
    generator, encoder, critic = Generator(4, C, size, width=8), Encoder(C, size, width=8), Discriminator(4, C, size, width=8)
    content = generator.content(torch.randn(N, generator.noise))
    assert encoder(images).shape == content.shape
    made = generator(content, classes)
    assert made.shape == images.shape
    assert critic(made, classes).shape == (N,)


def test_classes_reach_both_players() -> None:
    torch.manual_seed(0)
    generator, critic = Generator(3, C, S, width=8), Discriminator(3, C, S, width=8).eval()
    for norm in generator.norms:
        torch.nn.init.normal_(norm.scale.weight)
    content = generator.content(torch.randn(N, generator.noise))
    first, second = torch.zeros(N).long(), torch.ones(N).long()
    assert not generator(content, first).allclose(generator(content, second))
    images = some_images()
    assert not critic(images, first).allclose(critic(images, second))
    for name in ("first", "score", "embed"):
        for _ in range(50):  # power iterations run in training mode
            weight = getattr(critic.train(), name).weight.detach()
        assert torch.linalg.matrix_norm(weight.flatten(1), 2) == pytest.approx(1, abs=0.02)
    assert hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])).item() == 0.75


@pytest.mark.parametrize("style", [False, True])
def test_classes_are_filled_and_marked(style: bool) -> None:
    images, classes = some_images(n=14), torch.tensor([0] * 9 + [2] * 3 + [3] * 2)
    before = torch.get_rng_state()
    settings = Settings(steps=2, batch=8, width=8, style=style)
    filled = fill(images, classes, settings, seed=5)
    assert torch.get_rng_state().equal(before)
    assert filled.classes.bincount().tolist() == [9, 0, 9, 9], "a class without a row is not invented"
    assert filled.images[:14].equal(images)
    assert filled.source[:14] == ("real",) * 14
    made = {s: filled.source.count(s) for s in ("gan", "gan-style")}
    assert made == ({"gan": 7, "gan-style": 6} if style else {"gan": 13, "gan-style": 0})
    assert len(filled.generated) == 13
    assert filled.generated.min() >= 0
    assert filled.generated.max() <= 1
    assert fill(images, classes, settings, seed=5).images.equal(filled.images)
    assert not fill(images, classes, settings, seed=6).images.equal(filled.images)
    assert fill(images, classes, settings, count=4).classes.bincount().tolist() == [9, 0, 4, 4]
    if not style:
        with pytest.raises(DataError, match="no styles"):
            filled.gan.restyle(images, classes)


def test_training_learns_what_a_class_looks_like() -> None:
    """Two classes, one dark and one bright: the averaged generator tells them apart."""
    torch.manual_seed(0)
    classes = torch.arange(64) % 2
    images = (0.15 + 0.7 * classes.float())[:, None, None, None] + 0.1 * torch.rand(64, 1, 8, 8)
    gan = train_gan(images, classes, Settings(steps=60, batch=32, width=16, ema=0.9))
    dark, bright = (gan.make(torch.full((16,), c)).mean() for c in (0, 1))
    assert bright - dark > 0.3


def test_nearest_equals_scikit_learn() -> None:
    images = some_images(n=11)
    rows, among = images[:4], images[4:]
    want = NearestNeighbors(n_neighbors=1).fit(among.flatten(1).numpy()).kneighbors(rows.flatten(1).numpy())[0][:, 0]
    torch.testing.assert_close(nearest(rows, among), torch.from_numpy(want).float())
    others = [nearest(images[i : i + 1], torch.cat([images[:i], images[i + 1 :]])) for i in range(11)]
    torch.testing.assert_close(nearest(images, images), torch.cat(others))


def test_what_it_cannot_take_is_said() -> None:
    classes = torch.zeros(N).long()
    for images, labels, message in (
        (some_images()[:, :, :, 1:], classes, "square"),
        (some_images() * 255, classes, "0..1"),
        (some_images(), classes - 1, "without a class"),
        (some_images(size=9), classes, "8 to 64"),
    ):
        with pytest.raises(DataError, match=message):
            train_gan(images, labels, Settings(steps=1))
    assert [levels_of(s) for s in (8, 28, 32, 64)] == [1, 2, 3, 4]
