"""What center loss adds to a step, and Attention-56 beside ResNet-50: `python benchmarks/fine_grained.py`. One thread, CPU time."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from measure import medians, report
from torch import Tensor, nn
from torchvision.models import resnet50

from pycls.losses.center import CenterLoss
from pycls.models.attention import attention56

CLASSES, FEATURES, STEP_BATCH, BATCH = 10_000, 2048, 32, 4
GIGA = {"ResNet-50": 4.089, "Attention-56": 6.271}  # multiply-adds an image at 224 px; torchvision's own figure, and tests/test_attention.py


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, classes: Tensor) -> None:
    """Forward, backward, update."""
    optimizer.zero_grad()
    F.cross_entropy(model(images), classes).backward()
    optimizer.step()


def center_step(loss: CenterLoss, features: Tensor, classes: Tensor) -> None:
    """The same of the center loss alone: its value, its gradient to the features, its centers' move."""
    features.grad = None
    (0.003 * loss(features, classes)).backward()
    loss.update()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = resnet50(num_classes=CLASSES)
    images, classes = torch.randn(STEP_BATCH, 3, 224, 224), torch.randint(0, CLASSES, (STEP_BATCH,))
    features = torch.randn(STEP_BATCH, FEATURES, requires_grad=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    center = CenterLoss(CLASSES, FEATURES)
    step_time = medians({"step": lambda: step(net, optimizer, images, classes)}, 1)["step"]
    center_time = medians({"center": lambda: center_step(center, features, classes)}, 50)["center"]
    nets = {"ResNet-50": resnet50(), "Attention-56": attention56()}
    few, labels = images[:BATCH], torch.randint(0, 1000, (BATCH,))
    optimizers = {name: torch.optim.SGD(m.parameters(), 0.01) for name, m in nets.items()}
    times = medians({name: lambda name=name: step(nets[name], optimizers[name], few, labels) for name in nets}, args.rounds)
    rates = {name: BATCH / seconds for name, seconds in times.items()}
    report(
        "Fine-grained classification",
        [
            (
                f"center loss beside a ResNet-50 step, batch {STEP_BATCH}, {CLASSES:,} classes, {FEATURES} features",
                f"{1000 * center_time:.2f} ms of {step_time:.1f} s: {center_time / step_time:.2%}",
                "at most 3 %",
            ),
            (f"ResNet-50 of torchvision, batch {BATCH} at 224 px", f"{rates['ResNet-50']:.2f} images/s", ""),
            (f"Attention-56, batch {BATCH} at 224 px", f"{rates['Attention-56']:.2f} images/s", ""),
            (
                "Attention-56 over ResNet-50, seconds",
                f"{times['Attention-56'] / times['ResNet-50']:.2f}; multiply-adds {GIGA['Attention-56'] / GIGA['ResNet-50']:.2f}",
                "the ratio of the multiply-adds",
            ),
        ],
    )


if __name__ == "__main__":
    main()
