"""Attention masks as heat maps over the images they were made for.

A mask [C, h, w] is shown as its mean over the channels, stretched from its least to its greatest value: the scale is written above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prototxt import NetError
from prototxt.files import atomic_path

from .models.attention import masks_kept

if TYPE_CHECKING:
    from converters import CaffeNet

MOST = 12  # masks in one picture
FLAT = 1e-4  # a mask that differs by less is rounding, and shown as flat


def masks_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Masks [N, C, h, w] by module name, of a native net with mask branches; the model runs in eval mode and keeps its own."""
    mode = model.training
    try:
        with torch.no_grad(), masks_kept(model) as masks:
            model.eval()(images)
    finally:
        model.train(mode)
    if not masks:
        raise NetError("the model has no mask branches; fusion none, se and cbam make none")
    return dict(masks)


def masks_of_net(net: CaffeNet, images: Tensor, blobs: Sequence[str] = ()) -> dict[str, Tensor]:
    """Masks of a converted net: the blobs named, or else every top of a Sigmoid that has 4 axes."""
    (data,) = net.graph.inputs[:1]
    names = list(blobs) or [t.blob for s in net.graph.steps if s.type == "Sigmoid" for t in s.tops if len(net.graph.blob_shapes[t.blob]) == 4]
    unknown = [name for name in names if name not in net.graph.blob_shapes]
    if unknown or not names:
        known = ", ".join(b for b, shape in net.graph.blob_shapes.items() if len(shape) == 4)
        raise NetError((f"no blob {unknown[0]!r}" if unknown else "no Sigmoid makes a map of 4 axes") + f"; blobs of 4 axes: {known}")
    with torch.no_grad():
        made = net.blobs({data: images})
    return {name: made[name].float() for name in names}


def draw_net(
    path: str | Path,
    weights: str | Path | None,
    images: Sequence[str | Path],
    output: str | Path,
    *,
    blobs: Sequence[str] = (),
    mean: tuple[float, ...] = (),
    scale: float = 1.0,
) -> list[str]:
    """Masks of a net on disk over image files, brought to its input's size in BGR; the names of the blobs drawn."""
    import converters

    from .classify.config import ImageConfig
    from .classify.images import channel_constants, load_image

    net = converters.load(path, weights)
    _, channels, height, width = net.graph.blob_shapes[net.graph.inputs[0]]
    spec = ImageConfig(height=height, width=width, channels=channels, order="BGR", scale=scale, mean=tuple(m * scale for m in mean))
    pixels = torch.stack([torch.from_numpy(load_image([image], spec)) for image in images]).float()
    factor, shift = (torch.from_numpy(c).view(1, -1, 1, 1) for c in channel_constants(spec, channels))
    masks = masks_of_net(net, pixels * factor + shift, blobs)
    draw(pixels.flip(1) / 255, masks, output)
    return list(masks)


def heat(mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, float, float]:
    """A mask [C, h, w] -> its mean over channels at `size`, stretched to 0..1, and the least and greatest value of the mean."""
    flat = mask.float().mean(0)
    low, high = float(flat.min()), float(flat.max())
    wide = F.interpolate(flat[None, None], size, mode="bilinear", align_corners=True)[0, 0]
    return (wide - low) / (high - low) if high - low > FLAT else torch.zeros_like(wide), low, high


def draw(images: Tensor, masks: Mapping[str, Tensor], path: str | Path) -> None:
    """A row an image, first the image [N, C, H, W] in 0..1, then each mask over it. PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(masks) > MOST:
        raise NetError(f"{len(masks)} masks do not fit one picture of at most {MOST}; name some of {', '.join(masks)}")
    figure = Figure(figsize=(1.75 * (len(masks) + 1), 1.9 * len(images)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(masks) + 1, squeeze=False)
    for n, image in enumerate(images.detach().cpu()):
        shown = image.clamp(0, 1).movedim(0, -1)
        shown = shown.expand(-1, -1, 3) if shown.shape[2] == 1 else shown[:, :, :3]
        _panel(axes[n][0], shown, "")
        for ax, (name, mask) in zip(axes[n][1:], masks.items(), strict=True):
            values, low, high = heat(mask[n].cpu(), tuple(image.shape[1:]))  # type: ignore[arg-type]
            _panel(ax, shown.mean(2, keepdim=True).expand(-1, -1, 3), f"{low:.2f} to {high:.2f}")
            ax.imshow(values.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
            if n == 0:
                ax.set_title(f"{name}\n{low:.2f} to {high:.2f}", fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")


def _panel(ax: Any, shown: Tensor, title: str) -> None:
    ax.imshow(shown.numpy(), vmin=0, vmax=1)
    ax.set_title(title, fontsize=7)
    ax.set_axis_off()
