"""Caffe's update rules as torch optimizers. The order of a step is Caffe's: decay, then the rule with rate = lr * lr_mult.

    SGD        v <- m v + rate g;  w <- w - v          the rate is inside v: a lower rate does not touch what v holds already
    torch's    v <- m v + g;       w <- w - rate v     (differs once the rate changes)

Groups take `lr`, `lr_mult`, `weight_decay` and `decay_mult`; decay is L2 (adds d w) or L1 (adds d sign(w)) and goes through the
adaptive rules like any gradient. Arithmetic runs over all parameters of a group at once: in torch's fused kernels where these can express the
rule, else in its foreach operators. Conformance: solvers/*, TRAINING.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam as torch_adam
from torch.optim.sgd import sgd as torch_sgd

Tensors = list[Tensor]


class CaffeOptimizer(Optimizer):
    """What the six rules share: decay, multipliers, and history blobs by parameter in the order of Caffe's solverstate."""

    histories: tuple[str, ...] = ("h",)

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0, regularization: str = "L2", **rule: float) -> None:
        if regularization not in ("L1", "L2"):
            raise ValueError(f"regularization is L1 or L2, not {regularization!r}")
        defaults = {"lr": lr, "lr_mult": 1.0, "weight_decay": weight_decay, "decay_mult": 1.0, "regularization": regularization, **rule}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            rate = group["lr"] * group["lr_mult"]
            if weights and group["lr_mult"] != 0:
                gradients: Tensors = [p.grad for p in weights]  # type: ignore[misc]
                history = [self.history(p, name) for name in self.histories for p in weights]
                if not self.fused(weights, gradients, history, rate, group):
                    self.update(weights, decayed(weights, gradients, group), history, rate, group)
        return loss

    def history(self, parameter: Tensor, name: str) -> Tensor:
        """A history blob of a parameter; zeros at first."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]  # type: ignore[no-any-return]

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        """Apply the rule in place; `g` may be overwritten."""
        raise NotImplementedError

    def fused(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> bool:
        """Decay and rule in one kernel of torch's, where one does just that; False if not. `g` stays as it is."""
        return False


def fusable(group: dict[str, Any], weights: Tensors, gradients: Tensors) -> bool:
    """Whether torch's fused kernels can take these: they know L2 alone, two devices, and walk over memory without a look at strides."""
    if group["regularization"] != "L2" and decay(group):
        return False
    return all(w.device.type in ("cpu", "cuda") and _alike(w, g) for w, g in zip(weights, gradients, strict=True))


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.stride() == b.stride() or any(a.is_contiguous(memory_format=f) and b.is_contiguous(memory_format=f) for f in _formats(a))


def _formats(t: Tensor) -> list[torch.memory_format]:
    return [torch.contiguous_format, *([torch.channels_last] if t.dim() == 4 else []), *([torch.channels_last_3d] if t.dim() == 5 else [])]


def decay(group: dict[str, Any]) -> float:
    """weight_decay * decay_mult."""
    return float(group["weight_decay"] * group["decay_mult"])


def decayed(weights: Tensors, gradients: Tensors, group: dict[str, Any]) -> Tensors:
    """New gradients with weight decay added: d w, or d sign(w) with sign(0) = 0."""
    d = decay(group)
    if d == 0:
        return [g.clone() for g in gradients]
    if group["regularization"] == "L2":
        return list(torch._foreach_add(gradients, weights, alpha=d))
    return list(torch._foreach_add(gradients, torch._foreach_sign(weights), alpha=d))


LEAST_DAMPED = 1e-8  # a rate below it would lose digits in 1 - (1 - rate)


class SGD(CaffeOptimizer):
    """h <- m h + rate g; w <- w - h. It is torch's own rule of the rate 1, with a dampening of 1 - rate."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0, **kwargs: Any) -> None:
        super().__init__(params, lr, momentum=momentum, **kwargs)

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        torch._foreach_mul_(history, group["momentum"])
        torch._foreach_add_(history, g, alpha=rate)
        torch._foreach_sub_(w, history)

    def fused(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> bool:
        m = group["momentum"]
        if type(self) is not SGD or m == 0 or rate < LEAST_DAMPED or not fusable(group, w, g):
            return False
        buffers = cast(list[Tensor | None], history)
        torch_sgd(
            w, g, buffers, fused=True, lr=1.0, momentum=m, dampening=1 - rate, weight_decay=decay(group), nesterov=False, maximize=False
        )  # fmt: skip
        return True


class Nesterov(SGD):
    """h' <- m h + rate g; w <- w - (1 + m) h' + m h."""

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        m = group["momentum"]
        torch._foreach_add_(w, history, alpha=m)
        torch._foreach_mul_(history, m)
        torch._foreach_add_(history, g, alpha=rate)
        torch._foreach_sub_(w, history, alpha=1 + m)


class AdaGrad(CaffeOptimizer):
    """h <- h + g^2; w <- w - rate g / (sqrt(h) + delta)."""

    def __init__(self, params: Iterable[Any], lr: float, delta: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(params, lr, delta=delta, **kwargs)

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        torch._foreach_addcmul_(history, g, g)
        _adapt(w, g, history, rate, group["delta"])


class RMSProp(CaffeOptimizer):
    """h <- r h + (1 - r) g^2; w <- w - rate g / (sqrt(h) + delta)."""

    def __init__(self, params: Iterable[Any], lr: float, rms_decay: float = 0.99, delta: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(params, lr, rms_decay=rms_decay, delta=delta, **kwargs)

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        torch._foreach_mul_(history, group["rms_decay"])
        torch._foreach_addcmul_(history, g, g, 1 - group["rms_decay"])
        _adapt(w, g, history, rate, group["delta"])


def _adapt(w: Tensors, g: Tensors, squares: Tensors, rate: float, delta: float) -> None:
    scale = torch._foreach_sqrt(squares)
    torch._foreach_add_(scale, delta)
    torch._foreach_addcdiv_(w, g, scale, -rate)


class AdaDelta(CaffeOptimizer):
    """h <- m h + (1 - m) g^2; v = g sqrt((q + delta) / (h + delta)); q <- m q + (1 - m) v^2; w <- w - rate v."""

    histories = ("h", "q")

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0, delta: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(params, lr, momentum=momentum, delta=delta, **kwargs)

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        m, delta = group["momentum"], group["delta"]
        h, q = history[: len(w)], history[len(w) :]
        torch._foreach_mul_(h, m)
        torch._foreach_addcmul_(h, g, g, 1 - m)
        ratio = torch._foreach_div(torch._foreach_add(q, delta), torch._foreach_add(h, delta))
        torch._foreach_sqrt_(ratio)
        torch._foreach_mul_(g, ratio)
        torch._foreach_mul_(q, m)
        torch._foreach_addcmul_(q, g, g, 1 - m)
        torch._foreach_add_(w, g, alpha=-rate)


class Adam(CaffeOptimizer):
    """a <- m a + (1 - m) g; b <- m2 b + (1 - m2) g^2; w <- w - rate sqrt(1 - m2^t) / (1 - m^t) a / (sqrt(b) + delta)."""

    histories = ("a", "b")

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, momentum2: float = 0.999, delta: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(params, lr, momentum=momentum, momentum2=momentum2, delta=delta, t=0, **kwargs)

    def update(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> None:
        m, m2 = group["momentum"], group["momentum2"]
        group["t"] += 1  # set to the iteration on resume
        a, b = history[: len(w)], history[len(w) :]
        torch._foreach_mul_(a, m)
        torch._foreach_add_(a, g, alpha=1 - m)
        torch._foreach_mul_(b, m2)
        torch._foreach_addcmul_(b, g, g, 1 - m2)
        correction = math.sqrt(1 - m2 ** group["t"]) / (1 - m ** group["t"])
        _adapt(w, a, b, rate * correction, group["delta"])

    def fused(self, w: Tensors, g: Tensors, history: Tensors, rate: float, group: dict[str, Any]) -> bool:
        """torch's Adam corrects its eps as well; Caffe's delta it takes divided by that correction."""
        m, m2 = group["momentum"], group["momentum2"]
        if not (0 <= m < 1 and 0 <= m2 < 1) or not fusable(group, w, g):
            return False
        before = [torch.full((), float(group["t"]), device=p.device) for p in w]
        group["t"] += 1
        torch_adam(
            w, g, history[: len(w)], history[len(w) :], [], before, fused=True, amsgrad=False, beta1=m, beta2=m2, lr=rate,
            weight_decay=decay(group), eps=group["delta"] / math.sqrt(1 - m2 ** group["t"]), maximize=False,
        )  # fmt: skip
        return True


OPTIMIZERS: dict[str, type[CaffeOptimizer]] = {
    "AdaDelta": AdaDelta,
    "AdaGrad": AdaGrad,
    "Adam": Adam,
    "Nesterov": Nesterov,
    "RMSProp": RMSProp,
    "SGD": SGD,
}
