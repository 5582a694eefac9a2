"""Each of our own modules beside the obvious torch code for it, forward and backward, one thread: `python benchmarks/layers.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measure import medians, report
from torch import Tensor, nn

from converters.modules import convolution, eltwise, linear, losses, normalization, pooling, scale, shape

N, C, H, W = 16, 64, 55, 55
ROUND = 0.05  # seconds of passes that are timed together


def contenders() -> list[tuple[str, nn.Module, str, Callable[..., Any], tuple[Tensor, ...]]]:
    """(job, our module, the peer's name, the peer, inputs)."""
    image, small = torch.randn(N, C, H, W), torch.randn(N, C, 28, 28)
    logits, labels = torch.randn(256, 1000), torch.randint(0, 1000, (256,)).float()
    targets = torch.rand(256, 1000)
    norm, stored = normalization.BatchNorm(C), normalization.BatchNorm(C).eval()
    stored.variance.fill_(1)
    stored.factor.fill_(1)
    weight, shift = nn.Parameter(torch.ones(C, 1, 1)), nn.Parameter(torch.zeros(C, 1, 1))
    inner, wide = torch.randn(N, C, 7, 7), ((5, 5), (3, 3), (3, 3), True)
    pair = (small, small.clone())
    each, conv = convolution.Conv2dEach(in_channels=C, out_channels=32, kernel_size=3), nn.Conv2d(C, 32, 3)
    product, line = linear.InnerProduct(C * 49, 256), nn.Linear(C * 49, 256)
    conv.load_state_dict(each.state_dict())
    line.load_state_dict(product.state_dict())
    return [
        ("LRN 64x55x55", normalization.LRN(5, 1e-4, 0.75, 1.0), "nn.LocalResponseNorm", nn.LocalResponseNorm(5), (image,)),
        ("LRN within channels", normalization.LRNWithin(3, 1e-4, 0.75), "avg_pool2d by hand", _within, (image,)),
        ("BatchNorm, training", norm.train(), "nn.BatchNorm2d", nn.BatchNorm2d(C, affine=False).train(), (small,)),
        ("BatchNorm, inference", stored, "nn.BatchNorm2d", nn.BatchNorm2d(C, affine=False).eval(), (small,)),
        ("Scale with bias", scale.Scale(1, (C,), True), "x * w + b", lambda x: x * weight + shift, (small,)),
        (
            "InnerProduct of a map",
            product,
            "nn.Linear",
            nn.Sequential(nn.Flatten(), line),
            (inner,),
        ),
        (
            "MAX pooling, wide padding",
            pooling.WideMaxPool2d(*wide),
            "F.pad, F.max_pool2d",
            lambda x: F.max_pool2d(F.pad(x, (3, 4, 3, 4), value=float("-inf")), 5, 3),
            (small,),
        ),
        (
            "AVE pooling, wide padding",
            pooling.WideAvgPool2d(*wide),
            "F.pad, F.avg_pool2d / areas",
            _average,
            (small,),
        ),
        (
            "SoftmaxWithLoss",
            losses.SoftmaxWithLoss(1, "VALID"),
            "F.cross_entropy, clamp",
            _cross_entropy,
            (logits, labels),
        ),
        ("SigmoidCrossEntropyLoss", losses.SigmoidCrossEntropyLoss("FULL"), "BCE with logits", nn.BCEWithLogitsLoss(), (logits, targets)),
        (
            "EuclideanLoss",
            losses.EuclideanLoss(),
            "F.mse_loss / 2 N",
            lambda x, y: F.mse_loss(x, y, reduction="sum") / (2 * len(x)),
            (logits, targets),
        ),
        ("MVN", normalization.MVN(False, True, 1e-9), "nn.InstanceNorm2d", nn.InstanceNorm2d(C), (small,)),
        ("Eltwise SUM", eltwise.Sum(), "a + b", torch.add, pair),
        ("Concat", shape.Concat(1), "torch.cat", lambda *x: torch.cat(x, 1), pair),
        (
            "Convolution of two bottoms",
            each,
            "nn.Conv2d twice",
            lambda a, b: (conv(a), conv(b)),
            pair,
        ),
    ]


def _cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x, y.long(), reduction="none").clamp(max=87.3365).sum() / len(x)


def _average(x: Tensor) -> Tensor:
    """The area of the last window ends with the near padding's width behind the image."""
    areas = F.avg_pool2d(F.pad(torch.ones(1, 1, 34, 34), (0, 1, 0, 1)), 5, 3)
    return F.avg_pool2d(F.pad(x, (3, 4, 3, 4)), 5, 3) / areas


def _within(x: Tensor) -> Tensor:
    return x * (1 + 1e-4 * F.avg_pool2d(x * x, 3, 1, 1)).pow(-0.75)


def forward_backward(run: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
    """One pass with gradients to the first input."""
    first = inputs[0].detach().requires_grad_(True)
    made = run(first, *inputs[1:])
    made = made if isinstance(made, tuple) else (made,)
    torch.autograd.backward([m.sum() for m in made])


def repeated(run: Callable[..., Any], inputs: tuple[Tensor, ...], times: int) -> None:
    """Several passes."""
    for _ in range(times):
        forward_backward(run, inputs)


def same(ours: Callable[..., Any], theirs: Callable[..., Any], inputs: tuple[Tensor, ...]) -> bool:
    """Whether both compute the same: a peer that does less is none."""
    made = [run(*inputs) for run in (ours, theirs)]
    left, right = (m if isinstance(m, tuple) else (m,) for m in made)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(left, right, strict=True))


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = []
    for job, ours, peer, theirs, inputs in contenders():
        if not same(ours, theirs, inputs):
            sys.exit(f"{job}: {peer} computes something else")
        forward_backward(theirs, inputs)
        start = time.perf_counter()
        forward_backward(theirs, inputs)
        times = 1 + int(ROUND / (time.perf_counter() - start))  # a pass below a millisecond is noise
        t = medians({name: lambda r=run, i=inputs, n=times: repeated(r, i, n) for name, run in (("ours", ours), ("theirs", theirs))}, 15)
        ratio = t["theirs"] / t["ours"]
        goal = ">= 3x" if job.startswith("LRN 64") else "not slower"
        rows.append((job, f"{1e3 * t['ours'] / times:.2f} ms, {peer} {1e3 * t['theirs'] / times:.2f} ms: **{ratio:.2f}x**", goal))
    report("Layers, forward and backward, one thread, CPU time", rows)


if __name__ == "__main__":
    main()
