"""Residual Attention Network: H(x) = (1 + M(x)) * T(x), a mask in 0..1 from a path down and up again beside each trunk.

    input -> stem -> [unit, attention modules] x 3 stages -> 3 units -> BN, ReLU, mean over space -> classes

Wang et al., Residual Attention Network for Image Classification, CVPR 2017, wired as in the authors' prototxt: the mask begins behind
the module's first unit, each skip has a unit of its own, a unit follows the fusion, every unit is pre-activated and a projection reads
the pre-activated input. prototxt/nets/attention56.prototxt has the same names with `/` for `.`, so weights pass by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prototxt import NetError

LAST_SCALE = 0.25  # of a unit and of a mask at first: near the identity and near 1/2, or untrained depth would amplify rounding
FUSIONS = ("residual", "naive", "none")
MASKS = ("mixed", "channel", "spatial", "se", "cbam")


class Unit(nn.Module):
    """Pre-activated bottleneck [N, in, H, W] -> [N, 4 width, H / stride, W / stride]; a projection where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn3 = nn.BatchNorm2d(width)
        nn.init.constant_(self.bn3.weight, LAST_SCALE)
        self.conv3 = conv(width, 4 * width, 1)
        self.projection = conv(inputs, 4 * width, 1, stride) if stride != 1 or inputs != 4 * width else None

    def forward(self, x: Tensor) -> Tensor:
        """Residual branch plus shortcut."""
        ready = F.relu(self.bn1(x))
        y = self.conv1(ready)
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        return y + (x if self.projection is None else self.projection(ready))


class Mask(nn.Module):
    """[N, C, H, W] -> a mask of the same shape, from `poolings` halvings down and as many resizes up.

    mixed    sigmoid of each value
    channel  each place over its length across the channels
    spatial  sigmoid of each map, normalised over its places
    """

    def __init__(self, channels: int, poolings: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.down = nn.ModuleList(Unit(channels, channels // 4) for _ in range(poolings))
        self.bottom = Unit(channels, channels // 4)
        self.skip = nn.ModuleList(Unit(channels, channels // 4) for _ in range(poolings - 1))
        self.up = nn.ModuleList(Unit(channels, channels // 4) for _ in range(poolings - 1))
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = conv(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        nn.init.constant_(self.bn2.weight, LAST_SCALE)
        self.conv2 = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Down, up, and the mask."""
        levels, y = [x], x
        for unit in self.down:
            y = unit(halved(y))
            levels.append(y)
        y = self.bottom(y)
        for unit, skip, level in reversed(list(zip(self.up, self.skip, levels[1:-1], strict=True))):
            y = unit(resized(y, level) + skip(level))
        y = self.conv1(F.relu(self.bn1(resized(y, x))))
        return self.activation(self.conv2(F.relu(self.bn2(y))))

    def activation(self, y: Tensor) -> Tensor:
        """The last step, by kind."""
        if self.kind == "channel":
            return F.normalize(y, dim=1)
        if self.kind == "spatial":
            y = F.instance_norm(y)
        return y.sigmoid()


class CBAM(nn.Module):
    """A gate a channel, then a gate a place, each from the mean and the maximum (Woo et al. 2018); same shape."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        between = max(channels // reduction, 1)
        self.channels = nn.Sequential(nn.Conv2d(channels, between, 1), nn.ReLU(), nn.Conv2d(between, channels, 1))
        self.places = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Channels first, then places."""
        x = x * (self.channels(x.mean((2, 3), keepdim=True)) + self.channels(x.amax((2, 3), keepdim=True))).sigmoid()
        return x * self.places(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class AttentionModule(nn.Module):
    """One unit, then trunk and mask side by side, their fusion, and one more unit; same shape."""

    def __init__(self, channels: int, poolings: int, fusion: str, mask: str) -> None:
        super().__init__()
        self.fusion = fusion
        self.first = Unit(channels, channels // 4)
        self.trunk = nn.Sequential(*(Unit(channels, channels // 4) for _ in range(2)))
        self.gate = gate(channels, mask) if fusion != "none" else None
        self.mask = Mask(channels, poolings, mask) if fusion != "none" and self.gate is None else None
        self.last = Unit(channels, channels // 4)

    def forward(self, x: Tensor) -> Tensor:
        """As the module says."""
        x = self.first(x)
        y = self.trunk(x)
        if self.gate is not None:
            y = self.gate(y)
        elif self.mask is not None:
            weighed = self.mask(x) * y
            y = weighed + y if self.fusion == "residual" else weighed
        return self.last(y)


class ResidualAttentionNet(nn.Module):
    """Images [N, channels, H, W] -> logits [N, classes].

    modules   attention modules a stage
    poolings  halvings in the masks of a stage
    width     channels of the stem; a stage has 4, 8, 16 times as many, the end 32 times
    stem      large: 7 x 7 by 2 and a pooling (224 px); small: 3 x 3 (32 px)
    fusion    residual (1 + M) T, naive M T, none T
    mask      mixed, channel or spatial; se and cbam put a gate behind the trunk instead
    """

    def __init__(
        self,
        classes: int = 1000,
        *,
        modules: tuple[int, int, int] = (1, 1, 1),
        poolings: tuple[int, int, int] = (3, 2, 1),
        width: int = 64,
        stem: str = "large",
        fusion: str = "residual",
        mask: str = "mixed",
        channels: int = 3,
    ) -> None:
        super().__init__()
        for name, value, known in (("stem", stem, ("large", "small")), ("fusion", fusion, FUSIONS), ("mask", mask, MASKS)):
            if value not in known:
                raise NetError(f"residual attention net: {name} is one of {', '.join(known)}, not {value!r}")
        self.conv1 = conv(channels, width, 7, 2) if stem == "large" else conv(channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = stem == "large"
        stages, inputs = [], width
        for n, (count, depth) in enumerate(zip(modules, poolings, strict=True)):
            unit = Unit(inputs, width << n, stride=1 if n == 0 else 2)
            inputs = 4 * (width << n)
            stages.append(nn.Sequential(unit, *(AttentionModule(inputs, depth, fusion, mask) for _ in range(count))))
        self.stages = nn.ModuleList(stages)
        self.tail = nn.Sequential(Unit(inputs, 8 * width, 2), Unit(32 * width, 8 * width), Unit(32 * width, 8 * width))
        self.bn = nn.BatchNorm2d(32 * width)
        self.classifier = nn.Linear(32 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 32 width]: what the classifier sees."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = halved(x) if self.pool else x
        for stage in self.stages:
            x = stage(x)
        return F.relu(self.bn(self.tail(x))).mean((2, 3))


def attention56(classes: int = 1000, *, fusion: str = "residual", mask: str = "mixed", channels: int = 3) -> ResidualAttentionNet:
    """Attention-56: 31,810,728 parameters, 6.271 G multiply-adds at 224 px."""
    return ResidualAttentionNet(classes, fusion=fusion, mask=mask, channels=channels)


def attention92(classes: int = 1000, *, fusion: str = "residual", mask: str = "mixed", channels: int = 3) -> ResidualAttentionNet:
    """Attention-92: 52,466,344 parameters, 10.534 G multiply-adds at 224 px."""
    return ResidualAttentionNet(classes, modules=(1, 2, 3), fusion=fusion, mask=mask, channels=channels)


def attention_small(classes: int = 10, *, width: int = 16, fusion: str = "residual", mask: str = "mixed", channels: int = 3) -> ResidualAttentionNet:
    """A small one for images around 32 px: no pooling in the stem, fewer in the masks, a quarter of the channels."""
    return ResidualAttentionNet(classes, poolings=(2, 1, 1), width=width, stem="small", fusion=fusion, mask=mask, channels=channels)


@contextmanager
def masks_kept(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside the block, the masks [N, C, h, w] of the latest forward pass by module name, detached."""
    kept: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, x, y, name=name: kept.__setitem__(name, y.detach()))  # type: ignore[misc]
        for name, module in model.named_modules()
        if isinstance(module, Mask)
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size up to its stride; He's initialisation."""
    made = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    return made


def gate(channels: int, kind: str) -> nn.Module | None:
    """A cheap gate behind the trunk, or None where `kind` is a mask."""
    if kind == "se":
        from torchvision.ops import SqueezeExcitation

        return SqueezeExcitation(channels, max(channels // 16, 1))
    return CBAM(channels) if kind == "cbam" else None


def halved(x: Tensor) -> Tensor:
    """Caffe's 3 x 3 maximum by 2 without padding, rounded up."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear with corners on corners, to the size of `like`."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def caffe_blobs(model: ResidualAttentionNet) -> dict[str, list[Tensor]]:
    """The model's weights by layer of its prototxt, as `converters.load(...).load` takes them, to write a .caffemodel."""
    blobs: dict[str, list[Tensor]] = {}
    for path, module in model.named_modules():
        name = path.replace(".", "/")
        if isinstance(module, nn.BatchNorm2d):
            if module.running_mean is None or module.running_var is None:
                raise NetError(f"{path}: a BatchNorm without running statistics has no form in Caffe")
            blobs[name] = [module.running_mean, module.running_var, torch.ones(1)]
            blobs[name.replace("bn", "scale")] = [module.weight, module.bias]
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            blobs[name] = [module.weight] if module.bias is None else [module.weight, module.bias]
    return blobs
