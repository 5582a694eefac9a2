"""Caffe's Accuracy, and that of segmentations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        rank = torch.arange(classes, device=x.device, dtype=x.dtype).view(-1, 1, 1)
        rank = rank.flip(0) if self.outputs else rank
        equal = x.clone().ge_(x.amax(1, keepdim=True))  # floats: several times faster than an argmax
        guess = equal.mul_(rank).amax(1).long().flatten()
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
