"""What `layers.py` measures: each of our own modules beside the torch code that computes the same, by family."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import peers_by_hand as by_hand
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from converters.modules import (
    activation,
    convolution,
    detection,
    eltwise,
    fork_losses,
    forks,
    linear,
    losses,
    metrics,
    normalization,
    pooling,
    recurrent,
    reduction,
    regions,
    resize,
    rows,
    scale,
    shape,
)

N, C = 16, 64


class Row(NamedTuple):
    """A job, our module, the peer's name, the peer, the inputs; whether there is a gradient, and whether chance decides the values."""

    job: str
    ours: nn.Module
    peer: str
    theirs: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    backward: bool = True
    random: bool = False


def all_rows() -> list[Row]:
    """Every row."""
    of_maps = (normalizations, activations, scales, products, poolings, pictures, shapes, of_regions)
    return list(chain.from_iterable(family() for family in (*of_maps, of_losses, losses_of_forks, measures, recurrences)))


def image(size: int = 28) -> Tensor:
    return torch.randn(N, C, size, size)


def normalizations() -> list[Row]:
    norm, stored = normalization.BatchNorm(C), normalization.BatchNorm(C).eval()
    stored.variance.fill_(1)
    stored.factor.fill_(1)
    scaled, frozen = normalization.ScaledBatchNorm(C), normalization.ScaledBatchNorm(C).eval()
    frozen.variance.fill_(1)
    own = nn.BatchNorm2d(C, 1e-9, track_running_stats=False)
    each, weight, one = normalization.Normalize(C, False, 1e-10), nn.Parameter(torch.rand(C)), nn.Parameter(torch.ones(()))
    each.load_state_dict({"weight": weight})
    return [
        Row("LRN 64x55x55", normalization.LRN(5, 1e-4, 0.75, 1.0), "nn.LocalResponseNorm", nn.LocalResponseNorm(5), (image(55),)),
        Row("LRN within channels", normalization.LRNWithin(3, 1e-4, 0.75), "avg_pool2d by hand", by_hand.within, (image(55),)),
        Row("BatchNorm, training", norm.train(), "nn.BatchNorm2d", nn.BatchNorm2d(C, affine=False).train(), (image(),)),
        Row("BatchNorm, inference", stored, "nn.BatchNorm2d", nn.BatchNorm2d(C, affine=False).eval(), (image(),)),
        Row("BatchNorm with its scale, training", scaled, "nn.BatchNorm2d", nn.BatchNorm2d(C), (image(),)),
        Row("BatchNorm with its scale, inference", frozen, "nn.BatchNorm2d", nn.BatchNorm2d(C).eval(), (image(),)),
        Row("BatchNorm of SegNet", normalization.BatchStatistics(C), "nn.BatchNorm2d", own, (image(),)),
        Row("MVN", normalization.MVN(False, True, 1e-9), "nn.InstanceNorm2d", nn.InstanceNorm2d(C), (image(),)),
        Row("Normalize", each, "F.normalize * w", lambda x: F.normalize(x) * weight[:, None, None], (image(),)),
        Row(
            "Normalize across space",
            normalization.Normalize(None, True, 1e-10),
            "F.normalize * w",
            lambda x: F.normalize(x.flatten(1)).view_as(x) * one,
            (image(),),
        ),
    ]


def activations() -> list[Row]:
    x = image()
    return [
        Row("PReLU of one weight", activation.SharedPReLU(), "nn.PReLU", nn.PReLU(), (x,)),
        Row("AbsVal", activation.Abs(), "torch.abs", torch.abs, (x,)),
        Row("Power", activation.Power(2.0, 2.0, 0.5), "(0.5 + 2 * x) ** 2", lambda x: (0.5 + 2 * x) ** 2, (x,)),
        Row("Exp", activation.Exp(-1.0, 1.0, 0.0), "torch.exp", torch.exp, (x,)),
        Row("Exp of base 2", activation.Exp(2.0, 0.5, 1.0), "torch.exp2(1 + x / 2)", lambda x: torch.exp2(1 + x / 2), (x,)),
        Row("Log", activation.Log(-1.0, 1.0, 0.0), "torch.log", torch.log, (x.abs() + 0.1,)),
        Row("Log of base 2", activation.Log(2.0, 0.5, 1.0), "torch.log2(1 + x / 2)", lambda x: torch.log2(1 + x / 2), (x.abs(),)),
        Row("BNLL", activation.BNLL(), "nn.Softplus", nn.Softplus(), (x,)),
        Row("Threshold, forward", activation.Threshold(0.5), "(x > t).float()", lambda x: (x > 0.5).float(), (x,), backward=False),
        Row("Clip", activation.Clip(-1.0, 1.0), "torch.clamp", lambda x: x.clamp(-1, 1), (x,)),
        Row("Swish", activation.Swish(1.0), "nn.SiLU", nn.SiLU(), (x,)),
        Row("Swish of beta 2", activation.Swish(2.0), "F.silu(2 * x) / 2", lambda x: F.silu(2 * x) / 2, (x,)),
        Row("HardSigmoid", forks.HardSigmoid(0.2, 0.5), "(a * x + b).clamp(0, 1)", lambda x: (0.2 * x + 0.5).clamp(0, 1), (x,)),
        Row("Dropout, unscaled", activation.UnscaledDropout(0.5), "F.dropout(x) / 2", lambda x: F.dropout(x) / 2, (x,), random=True),
    ]


def scales() -> list[Row]:
    x, y, z, factor = image(), image(), image(), torch.randn(N, C)
    weight, shift = nn.Parameter(torch.ones(C, 1, 1)), nn.Parameter(torch.zeros(C, 1, 1))
    return [
        Row("Scale with bias", scale.Scale(1, (C,), True), "x * w + b", lambda x: x * weight + shift, (x,)),
        Row("Scale by a bottom", scale.ScaleBy(0), "x * f[:, :, None, None]", lambda x, f: x * f[:, :, None, None], (x, factor)),
        Row("Bias", scale.Bias(1, (C,)), "x + b", lambda x: x + shift, (x,)),
        Row("Bias by a bottom", scale.BiasBy(0), "x + f[:, :, None, None]", lambda x, f: x + f[:, :, None, None], (x, factor)),
        Row("Axpy", scale.Axpy(), "torch.addcmul", lambda f, x, y: torch.addcmul(y, f, x), (factor[..., None, None], x, y)),
        Row("Eltwise SUM", eltwise.Sum(), "a + b", torch.add, (x, y)),
        Row("Eltwise SUM of 3 with coefficients", eltwise.Sum((1, -1, 0.5)), "a - b + c / 2", lambda x, y, z: x - y + z / 2, (x, y, z)),
        Row("Eltwise PROD", eltwise.Product(), "a * b", torch.mul, (x, y)),
        Row("Eltwise MAX", eltwise.Maximum(), "torch.maximum", torch.maximum, (x, y)),
    ]


def products() -> list[Row]:
    each, conv = convolution.Conv2dEach(in_channels=C, out_channels=32, kernel_size=3), nn.Conv2d(C, 32, 3)
    product, line = linear.InnerProduct(C * 49, 256), nn.Linear(C * 49, 256)
    turned = linear.InnerProduct(C * 49, 256, transpose=True)
    conv.load_state_dict(each.state_dict())
    line.load_state_dict(product.state_dict())
    turned.load_state_dict({"weight": line.weight.t(), "bias": line.bias})
    embed, table, shift = linear.Embed(10000, 256, True), nn.Parameter(torch.randn(10000, 256)), nn.Parameter(torch.zeros(256))
    embed.load_state_dict({"weight": table, "bias": shift})
    words = torch.randint(0, 10000, (20, 32)).float()
    im2col = convolution.Im2col(1, (3, 3), (1, 1), (1, 1), (1, 1))
    return [
        Row("Convolution of two bottoms", each, "nn.Conv2d twice", lambda a, b: (conv(a), conv(b)), (image(), image())),
        Row("Im2col", im2col, "F.unfold", lambda x: F.unfold(x, 3, padding=1).unflatten(2, (28, 28)), (image(),)),
        Row("InnerProduct of a map", product, "nn.Linear", nn.Sequential(nn.Flatten(), line), (image(7),)),
        Row("InnerProduct, transposed", turned, "nn.Linear", nn.Sequential(nn.Flatten(), line), (image(7),)),
        Row("Embed", embed, "F.embedding(i.long(), w) + b", lambda i: F.embedding(i.long(), table) + shift, (words,)),
    ]


def poolings() -> list[Row]:
    x, wide = image(), ((5, 5), (3, 3), (3, 3), True)
    drawn = pooling.StochasticPool2d((3, 3), (2, 2), ceil_mode=True)
    expected = pooling.StochasticPool2d((3, 3), (2, 2), ceil_mode=True).eval()
    mask = pooling.MaxPool2dWithMask((3, 3), (2, 2), (1, 1), True)
    return [
        Row("MAX pooling, wide padding", pooling.WideMaxPool2d(*wide), "F.pad, F.max_pool2d", by_hand.maximum, (x,)),
        Row("AVE pooling, wide padding", pooling.WideAvgPool2d(*wide), "F.pad, F.avg_pool2d / areas", by_hand.average, (x,)),
        Row("MAX pooling with its mask", mask, "F.max_pool2d(return_indices=True)", by_hand.with_mask, (x,)),
        Row("STOCHASTIC pooling, training", drawn, "F.unfold, torch.multinomial", by_hand.drawn, (x.abs(),), random=True),
        Row("STOCHASTIC pooling, inference", expected, "avg_pool2d by hand", by_hand.expected, (x.abs(),)),
        Row("SPP, MAX", pooling.SPP(3), "F.adaptive_max_pool2d", lambda x: by_hand.pyramid(x, F.adaptive_max_pool2d), (x,)),
        Row("SPP, AVE", pooling.SPP(3, True), "F.adaptive_avg_pool2d", lambda x: by_hand.pyramid(x, F.adaptive_avg_pool2d), (x,)),
    ]


def pictures() -> list[Row]:
    x, twice, grid = image(), (56, 56), resize.GridResize
    values, places = F.max_pool2d(image(56), 2, return_indices=True)
    return [
        Row("Interp", resize.Interp(size=twice), "F.interpolate", by_hand.resized("bilinear", True), (x,)),
        Row("Resize, corners", grid(twice, "corners", True), "F.interpolate", by_hand.resized("bilinear", True), (x,)),
        Row("Resize, half pixels", grid(twice, "half", True), "F.interpolate", by_hand.resized("bilinear", False), (x,)),
        Row("Resize, nearest", grid(twice, "plain", False), "F.interpolate", by_hand.resized("nearest", None), (x,)),
        Row("Upsample", resize.Repeat(2), "F.interpolate", lambda x: F.interpolate(x, scale_factor=2), (x,)),
        Row("Upsample by a mask", resize.MaskUnpool(), "F.max_unpool2d", lambda v, m: F.max_unpool2d(v, m.long(), 2), (values, places.float())),
        Row("Reorg", resize.Reorg(2), "F.pixel_unshuffle", by_hand.reorganized, (x,)),
        Row("Pad", resize.Pad((1, 1, 2, 2)), "F.pad", lambda x: F.pad(x, (1, 1, 2, 2)), (x,)),
    ]


def shapes() -> list[Row]:
    x, y, one, flat = image(), image(), torch.randn(N, 2048, 1, 1), torch.randn(N, 2048)
    places = torch.randint(0, N, (N,)).float()
    mean, asum, sumsq = (reduction.Reduction(operation, 1) for operation in ("MEAN", "ASUM", "SUMSQ"))
    return [
        Row("Concat", shape.Concat(1), "torch.cat", lambda *x: torch.cat(x, 1), (x, y)),
        Row("Slice", shape.Slice((16, 48), 1), "torch.split", lambda x: x.split([16, 48], 1), (x,)),
        Row("Slice into equal parts", shape.SliceEqual(4, 1), "torch.chunk", lambda x: x.chunk(4, 1), (x,)),
        Row("Reshape", shape.Reshape((0, -1)), "x.flatten(1)", lambda x: x.flatten(1), (x,)),
        Row("Crop", shape.Crop(2, (2, 2)), "x[:, :, a:b, c:d]", lambda x, y: x[:, :, 2:26, 2:26], (x, image(24))),
        Row("Crop of the middle", shape.CropCenter((0, 0, 2, 2)), "x[:, :, a:b, c:d]", lambda x: x[:, :, 2:-2, 2:-2], (x,)),
        Row("Permute", shape.Permute((0, 2, 3, 1)), "x.permute", lambda x: x.permute(0, 2, 3, 1), (x,)),
        Row("Tile", shape.Tile(1, 3), "x.repeat", lambda x: x.repeat(1, 3, 1, 1), (x,)),
        Row("Squeeze", forks.Squeeze((2, 3)), "x.squeeze", lambda x: x.squeeze((2, 3)), (one,)),
        Row("ExpandDims", forks.Unsqueeze(2), "x.unsqueeze", lambda x: x.unsqueeze(2), (flat,)),
        Row("Reverse", forks.Reverse((0,)), "x.flip", lambda x: x.flip(0), (x,)),
        Row("BatchReindex", rows.BatchReindex(), "x[i.long()]", lambda x, i: x[i.long()], (x, places)),
        Row("Reduction, MEAN", mean, "x.flatten(1).mean(1)", lambda x: x.flatten(1).mean(1), (x,)),
        Row("Reduction, ASUM", asum, "x.flatten(1).norm(1, 1)", lambda x: x.flatten(1).norm(1, 1), (x,)),
        Row("Reduction, SUMSQ", sumsq, "x.flatten(1).square().sum(1)", lambda x: x.flatten(1).square().sum(1), (x,)),
    ]


def of_regions() -> list[Row]:
    """Corners on the grid of the map: torchvision rounds those of ps_roi_pool elsewhere, and takes them one cell further."""
    x, maps, count = torch.randn(2, 128, 38, 50), torch.randn(2, 21 * 49, 38, 50), 64
    low = torch.stack((torch.randint(0, 25, (count,)), torch.randint(0, 19, (count,))), 1)
    high = low + torch.stack((torch.randint(4, 25, (count,)), torch.randint(4, 19, (count,))), 1)
    boxes = torch.cat((torch.randint(0, 2, (count, 1)), 16 * low, 16 * high - 1), 1).float()
    behind = boxes + torch.tensor([0.0, 0, 0, 1, 1])
    pool, sensitive = regions.RoiPool((7, 7), 1 / 16), regions.PositionSensitiveRoiPool(7, 1 / 16)
    ops = torchvision.ops
    return [
        Row("ROIPooling", pool, "torchvision's roi_pool", lambda x, r: ops.roi_pool(x, r, 7, 1 / 16), (x, boxes)),
        Row("PSROIPooling", sensitive, "torchvision's ps_roi_pool", lambda x, r: ops.ps_roi_pool(x, behind, 7, 1 / 16), (maps, boxes)),
    ]


def classified() -> tuple[Tensor, Tensor]:
    return torch.randn(256, 1000), torch.randint(0, 1000, (256,)).float()


def of_losses() -> list[Row]:
    pair, targets, matrix = classified(), torch.rand(256, 1000), torch.rand(1000, 1000)
    p, infogain = pair[0].softmax(1), losses.InfogainLoss(1, "VALID", classes=1000)
    infogain.load_state_dict({"matrix": matrix})
    features = torch.randn(64, 2048) / 64, torch.randn(64, 2048) / 64, torch.randint(0, 2, (64,)).float()
    return [
        Row("SoftmaxWithLoss", losses.SoftmaxWithLoss(1, "VALID"), "F.cross_entropy, clamp", by_hand.cross_entropy, pair),
        Row("SigmoidCrossEntropyLoss", losses.SigmoidCrossEntropyLoss("FULL"), "BCE with logits", nn.BCEWithLogitsLoss(), (pair[0], targets)),
        Row("EuclideanLoss", losses.EuclideanLoss(), "F.mse_loss / 2 N", by_hand.euclidean, (pair[0], targets)),
        Row("HingeLoss", losses.HingeLoss(), "F.one_hot, F.relu", by_hand.hinge, pair),
        Row("MultinomialLogisticLoss", losses.MultinomialLogisticLoss(), "F.nll_loss", by_hand.logistic, (p, pair[1])),
        Row("ContrastiveLoss", losses.ContrastiveLoss(1.0), "F.pairwise_distance", by_hand.contrastive, features),
        Row("InfogainLoss", infogain, "x.log_softmax, clamp", lambda x, y: by_hand.infogain(x, y, matrix), pair),
    ]


def losses_of_forks() -> list[Row]:
    pair, targets = classified(), torch.rand(256, 1000)
    a, b, c = torch.randn(64, 2048), torch.randn(64, 2048), torch.randn(64, 2048)
    boxes = torch.randn(512, 84), torch.randn(512, 84)
    weights = (torch.rand(512, 84) > 0.5).float(), torch.rand(512, 84)
    classes, centres = torch.randint(0, 1000, (64,)).float(), nn.Parameter(torch.zeros(1000, 2048))
    center = fork_losses.CenterLoss(1000, 2048)
    return [
        Row("L1Loss", fork_losses.L1Loss(), "F.l1_loss", lambda x, y: F.l1_loss(x, y, reduction="sum") / len(x), (pair[0], targets)),
        Row("SmoothL1Loss", fork_losses.SmoothL1LossEach("BATCH_SIZE"), "F.smooth_l1_loss", by_hand.smooth(1.0), boxes),
        Row("SmoothL1Loss, weighed", detection.SmoothL1Loss(3.0), "F.smooth_l1_loss", by_hand.smooth(1 / 9), (*boxes, *weights)),
        Row("SoftmaxWithLoss of forks", fork_losses.SoftmaxWithLossEach(1, "VALID"), "F.cross_entropy, clamp", by_hand.cross_entropy, pair),
        Row("FocalLoss", fork_losses.FocalLoss(1, 0.25, 2.0, "VALID"), "F.cross_entropy, clamp", by_hand.focal, pair),
        Row("CenterLoss", center, "F.mse_loss(x, w[i]) / 2 N", lambda x, i: by_hand.euclidean(x, F.embedding(i.long(), centres)), (a, classes)),
        Row("TripletLoss", fork_losses.TripletLoss(1.0), "by hand", by_hand.triplet, (a, b, c)),
    ]


def measures() -> list[Row]:
    pair, of_map = classified(), (torch.randn(4, 21, 128, 128), torch.randint(0, 21, (4, 1, 128, 128)).float())
    best, top_5, best_of_map = metrics.ArgMax(1, False), metrics.ArgMax(5, True, 1), metrics.ArgMax(1, False, 1)
    return [
        Row("Accuracy, forward", metrics.Accuracy(1), "torch.argmax", by_hand.accuracy, pair, backward=False),
        Row("Accuracy of the top 5, forward", metrics.Accuracy(1, 5), "torch.topk", by_hand.in_top_5, pair, backward=False),
        Row("Accuracy of maps, forward", metrics.Accuracy(1), "torch.argmax", by_hand.accuracy, of_map, backward=False),
        Row("SegAccuracy, forward", metrics.SegAccuracy(), "torch.argmax, torch.bincount", by_hand.confusion, of_map, backward=False),
        Row("ArgMax, forward", best, "torch.argmax", lambda x: x.argmax(1).float().view(-1, 1, 1), pair[:1], backward=False),
        Row("ArgMax of the top 5, forward", top_5, "torch.topk", lambda x: x.topk(5, 1).values, pair[:1], backward=False),
        Row("ArgMax of maps, forward", best_of_map, "torch.argmax", lambda x: x.argmax(1, True).float(), of_map[:1], backward=False),
    ]


def recurrences() -> list[Row]:
    steps, streams, size = 20, 16, 256
    x, cont = torch.randn(steps, streams, size), torch.ones(steps, streams)
    cont[0] = 0
    lstm, clipped, rnn = recurrent.LSTM(size, size), recurrent.ClippedLSTM(size, size, streams), recurrent.RNN(size, size)
    theirs, simple, last = nn.LSTM(size, size), nn.RNN(size, size), nn.Linear(size, size)
    for parameter in (*lstm.parameters(), *rnn.parameters()):
        nn.init.normal_(parameter, std=0.05)
    clipped.load_state_dict({"weight_x": lstm.weight_xc, "weight_h": lstm.weight_hc, "bias": lstm.bias_c})
    i, f, o, g = torch.cat((lstm.weight_xc, lstm.weight_hc, lstm.bias_c[:, None]), 1).detach().chunk(4)
    turned = torch.cat((i, f, g, o))  # torch has the candidate before the output gate
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    none = torch.zeros(4 * size)
    theirs.load_state_dict(dict(zip(names, (turned[:, :size], turned[:, size:-1], turned[:, -1], none), strict=True)))
    simple.load_state_dict(dict(zip(names, (rnn.weight_xh, rnn.weight_hh, rnn.bias_h, none[:size]), strict=True)))
    last.load_state_dict({"weight": rnn.weight_ho, "bias": rnn.bias_o})
    unit = torch.randn(1, 64, size), torch.randn(1, 64, 4 * size), torch.ones(1, 64)
    rows_of_x = x.flatten(0, 1), cont.flatten()
    return [
        Row("LSTM", lstm, "nn.LSTM", lambda x, c: theirs(x)[0], (x, cont)),
        Row("LSTM with clips", clipped, "nn.LSTM", lambda x, c: theirs(x.unflatten(0, (steps, -1)))[0].flatten(0, 1), rows_of_x),
        Row("RNN", rnn, "nn.RNN, nn.Linear", lambda x, c: last(simple(x)[0]).tanh(), (x, cont)),
        Row("LSTMUnit", recurrent.LSTMUnit(), "by hand", by_hand.lstm_unit, unit),
    ]
