"""Caffe's ArgMax and Accuracy, and that of segmentations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ArgMax(nn.Module):
    """Indices of the `top_k` largest, as floats, the largest first; of equal values the highest index."""

    def __init__(self, top_k: int, values: bool, axis: int | None = None) -> None:
        super().__init__()
        self.top_k, self.values, self.axis = top_k, values, axis

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach()
        rows, axis = (x[..., None].flatten(1), 1) if self.axis is None else (x, self.axis)
        if self.axis is not None and self.values:
            return rows.amax(axis, keepdim=True) if self.top_k == 1 else rows.topk(self.top_k, axis).values
        value, place = self.highest(rows, axis)
        index = place.to(x.dtype)
        if self.axis is not None:
            return index
        top = torch.stack((index, value), 1) if self.values else index[:, None]
        return top.reshape(*top.shape, *(1,) * (x.dim() - 3))

    def highest(self, rows: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The largest values along an axis and their places; of equals the last comes first."""
        count, size = self.top_k, rows.shape[axis]
        order: Any
        if torch.compiler.is_exporting():  # ONNX has no stable sort, but its TopK gives ties in their order
            order = rows.flip(axis).topk(count, axis)
        elif count == 1:
            return last_of_largest(rows, axis)
        else:
            order = rows.topk(min(count + 1, size), axis)  # gives ties in any order
            if not torch.compiler.is_compiling() and not bool((order.values.diff(dim=axis) == 0).any()):
                return order.values.narrow(axis, 0, count), order.indices.narrow(axis, 0, count)
            order = rows.flip(axis).sort(dim=axis, descending=True, stable=True)
        return order.values.narrow(axis, 0, count), size - 1 - order.indices.narrow(axis, 0, count)


def last_of_largest(rows: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The largest value along an axis and its last place, as a float: without integers, which no processor compares as fast."""
    largest, place = rows.amax(axis, keepdim=True), torch.arange(rows.shape[axis], device=rows.device, dtype=rows.dtype)
    equal = rows.clone().ge_(largest)
    return largest, equal.mul_(place.view(-1, *(1,) * (rows.dim() - 1 - axis))).amax(axis, keepdim=True)


class Accuracy(nn.Module):
    """Share of samples whose class is among the top_k; one with an equal score counts as better. No gradient."""

    def __init__(self, axis: int, top_k: int = 1, ignore_label: int | None = None, per_class: bool = False) -> None:
        super().__init__()
        self.axis, self.top_k, self.ignore_label, self.per_class = axis, top_k, ignore_label, per_class

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = x.detach().movedim(self.axis, -1)
        label = label.detach().trunc().long().reshape(x.shape[:-1])
        valid = torch.ones_like(label, dtype=torch.bool) if self.ignore_label is None else label != self.ignore_label
        label = torch.where(valid, label, 0)
        rivals = (x >= x.gather(-1, label[..., None])).sum(-1) - 1  # the true class itself is one of them
        hit = ((rivals < self.top_k) & valid).to(x.dtype)
        accuracy = hit.sum() / valid.to(x.dtype).sum().clamp(min=1)
        if not self.per_class:
            return accuracy
        member = torch.nn.functional.one_hot(label.flatten(), x.shape[-1]).to(x.dtype) * valid.flatten()[:, None]
        return accuracy, (member * hit.flatten()[:, None]).sum(0) / member.sum(0).clamp(min=1)


class SegAccuracy(nn.Module):
    """Of the confusion of all places of a batch: accuracy, mean recall of the classes that occur, mean Jaccard index of all; [1, 1, 1, 3].

    A class that neither occurs nor is predicted has the index 1. For each of `outputs` a further result: its precision, recall and index,
    NaN where nothing was predicted or occurs. Of equal scores the last is the guess, as DeepLab sorts them; with `outputs`, which are an
    early PSPNet's, the first.
    """

    def __init__(self, ignored: tuple[int, ...] = (), outputs: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.ignored, self.outputs = ignored, outputs

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, classes = x.detach().to(torch.promote_types(x.dtype, torch.float32)), x.shape[1]
        guess = last_of_largest(x.flip(1) if self.outputs else x, 1)[1].long().flatten()
        guess = classes - 1 - guess if self.outputs else guess
        true = label.detach().long().flatten()
        counts = torch.ones_like(true, dtype=torch.bool)
        for value in self.ignored:
            counts = counts & (true != value)
        if not torch.compiler.is_compiling() and bool((counts & ((true < 0) | (true >= classes))).any()):
            raise IndexError(f"a label is none of the {classes} classes, nor ignored; there are {true[counts].unique().tolist()[:9]}")
        pair = torch.where(counts, true * classes + guess, classes * classes)
        confusion = torch.zeros(classes * classes + 1, device=x.device, dtype=x.dtype).index_add(0, pair, torch.ones_like(pair, dtype=x.dtype))
        confusion = confusion[:-1].view(classes, classes)
        hit, occurs, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        recall, union = hit / occurs.clamp(min=1), occurs + guessed - hit
        jaccard = torch.where(union == 0, 1.0, hit / union.clamp(min=1))
        whole = torch.stack((hit.sum() / confusion.sum().clamp(min=1), recall.sum() / (occurs > 0).sum().clamp(min=1), jaccard.mean()))
        results = [whole, *(torch.stack((hit[k] / guessed[k], hit[k] / occurs[k], jaccard[k])) for k in self.outputs)]
        shaped = tuple(r.to(x.dtype).view(1, 1, 1, 3) for r in results)
        return shaped if self.outputs else shaped[0]
