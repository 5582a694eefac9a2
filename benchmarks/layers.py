"""Each of our own modules beside the obvious torch code for it, forward and backward, one thread: `python benchmarks/layers.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from measure import medians, report
from torch import Tensor, nn

from converters.modules import convolution, eltwise, linear, losses, normalization, pooling, scale, shape

N, C, H, W = 16, 64, 55, 55


def contenders() -> list[tuple[str, nn.Module, str, Callable[..., Any], tuple[Tensor, ...]]]:
    """(job, our module, the peer's name, the peer, inputs)."""
    image, small = torch.randn(N, C, H, W), torch.randn(N, C, 28, 28)
    logits, labels = torch.randn(256, 1000), torch.randint(0, 1000, (256,)).float()
    targets = torch.rand(256, 1000)
    norm = normalization.BatchNorm(C)
    weight, shift = nn.Parameter(torch.ones(C, 1, 1)), nn.Parameter(torch.zeros(C, 1, 1))
    inner, wide = torch.randn(N, C, 7, 7), ((3, 3), (2, 2), (2, 2), True)
    pair = (small, small.clone())
    each = convolution.Conv2dEach(in_channels=C, out_channels=32, kernel_size=3)
    return [
        ("LRN 64x55x55", normalization.LRN(5, 1e-4, 0.75, 1.0), "nn.LocalResponseNorm", nn.LocalResponseNorm(5), (image,)),
        ("LRN within channels", normalization.LRNWithin(3, 1e-4, 0.75), "avg_pool2d by hand", _within, (image,)),
        ("BatchNorm, training", norm.train(), "nn.BatchNorm2d", nn.BatchNorm2d(C, affine=False).train(), (small,)),
        ("BatchNorm, inference", normalization.BatchNorm(C).eval(), "nn.BatchNorm2d", nn.BatchNorm2d(C, affine=False).eval(), (small,)),
        ("Scale with bias", scale.Scale(1, (C,), True), "x * w + b", lambda x: x * weight + shift, (small,)),
        (
            "InnerProduct of a map",
            linear.InnerProduct(C * 49, 256),
            "nn.Linear",
            nn.Sequential(nn.Flatten(), nn.Linear(C * 49, 256)),
            (inner,),
        ),
        (
            "MAX pooling, wide padding",
            pooling.WideMaxPool2d(*wide),
            "nn.MaxPool2d",
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            (small,),
        ),
        (
            "AVE pooling, wide padding",
            pooling.WideAvgPool2d(*wide),
            "nn.AvgPool2d",
            nn.AvgPool2d(3, 2, 1, ceil_mode=True),
            (small,),
        ),
        (
            "SoftmaxWithLoss",
            losses.SoftmaxWithLoss(1, "VALID"),
            "nn.CrossEntropyLoss",
            _cross_entropy,
            (logits, labels),
        ),
        ("SigmoidCrossEntropyLoss", losses.SigmoidCrossEntropyLoss("BATCH_SIZE"), "BCE with logits", nn.BCEWithLogitsLoss(), (logits, targets)),
        ("EuclideanLoss", losses.EuclideanLoss(), "nn.MSELoss", nn.MSELoss(), (logits, targets)),
        ("MVN", normalization.MVN(False, True, 1e-9), "nn.InstanceNorm2d", nn.InstanceNorm2d(C), (small,)),
        ("Eltwise SUM", eltwise.Sum(), "a + b", torch.add, pair),
        ("Concat", shape.Concat(1), "torch.cat", lambda *x: torch.cat(x, 1), pair),
        (
            "Convolution of two bottoms",
            each,
            "nn.Conv2d twice",
            _twice(),
            pair,
        ),
    ]


def _cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(x, y.long())


def _within(x: Tensor) -> Tensor:
    return x * (1 + 1e-4 * nn.functional.avg_pool2d(x * x, 3, 1, 1)).pow(-0.75)


def _twice() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    conv = nn.Conv2d(C, 32, 3)
    return lambda a, b: (conv(a), conv(b))


def forward_backward(run: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
    """One pass with gradients to the first input."""
    first = inputs[0].detach().requires_grad_(True)
    made = run(first, *inputs[1:])
    made = made if isinstance(made, tuple) else (made,)
    torch.autograd.backward([m.sum() for m in made])


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = []
    for job, ours, peer, theirs, inputs in contenders():
        t = medians({"ours": lambda o=ours, i=inputs: forward_backward(o, i), "theirs": lambda p=theirs, i=inputs: forward_backward(p, i)}, 7)
        ratio = t["theirs"] / t["ours"]
        goal = ">= 3x" if job.startswith("LRN 64") else "not slower"
        rows.append((job, f"{1e3 * t['ours']:.2f} ms, {peer} {1e3 * t['theirs']:.2f} ms: **{ratio:.2f}x**", goal))
    report("Layers, forward and backward, one thread, CPU time", rows)


if __name__ == "__main__":
    main()
