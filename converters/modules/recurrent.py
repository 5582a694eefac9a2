"""Caffe's recurrent layers, unrolled over time. T steps, N streams, D hidden units; `cont` [T, N] is 0 where a stream restarts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lstm_step(cell: Tensor, gates: Tensor, cont: Tensor | float) -> tuple[Tensor, Tensor]:
    """cell [..., D], gates [..., 4 D] in the order input, forget, output, candidate, cont [..., 1] -> the next cell and state."""
    keep, forget, give, candidate = gates.chunk(4, -1)
    cell = cont * forget.sigmoid() * cell + keep.sigmoid() * candidate.tanh()
    return cell, give.sigmoid() * cell.tanh()


def unbroken(cont: Tensor) -> bool:
    """Whether no stream of [T, N] restarts behind its first step. Never while a graph is traced, which must not look at values."""
    return not torch.compiler.is_compiling() and cont.numel() > 0 and bool((cont[1:] == 1).all())


def whole(x: Tensor, state: Tensor, cell: Tensor, weight_x: Tensor, weight_h: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, N, F], state and cell [N, D] -> states, last state and cell by torch's own LSTM, whose gates are input, forget, candidate, output."""
    parts = (t.chunk(4) for t in (weight_x, weight_h, bias))
    gates = [torch.cat((keep, forget, candidate, give)) for keep, forget, give, candidate in parts]
    made: tuple[Tensor, Tensor, Tensor] = torch.lstm(x, (state[None], cell[None]), [*gates, torch.zeros_like(bias)], True, 1, 0.0, True, False, False)
    return made


class LSTMUnit(nn.Module):
    """One step of an LSTM: cell [1, N, D], gates [1, N, 4 D], cont [1, N] -> the next cell and state. cont scales the forget gate."""

    def forward(self, cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        return lstm_step(cell, gates, cont.detach()[..., None])


class LSTM(nn.Module):
    """x [T, N, ...], cont [T, N] (, static [N, ...]) (, state and cell [1, N, D]) -> states [T, N, D] (, the last state and cell).

    The state and the cell start from zero if they are no inputs. Donahue et al., Long-term Recurrent Convolutional Networks, 2015.
    """

    def __init__(self, features: int, hidden: int, static: int | None = None, expose_hidden: bool = False) -> None:
        super().__init__()
        self.hidden, self.expose_hidden = hidden, expose_hidden
        self.weight_xc = nn.Parameter(torch.empty(4 * hidden, features))
        self.bias_c = nn.Parameter(torch.empty(4 * hidden))
        self.weight_static = None if static is None else nn.Parameter(torch.empty(4 * hidden, static))
        self.weight_hc = nn.Parameter(torch.empty(4 * hidden, hidden))

    def forward(self, x: Tensor, cont: Tensor, *rest: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        x, zeros = x.flatten(2), x.new_zeros(x.shape[1], self.hidden)
        state, cell = (rest[-2][0], rest[-1][0]) if self.expose_hidden else (zeros, zeros)
        if self.weight_static is None and unbroken(cont.detach()):
            first = cont.detach()[0, :, None]
            made = whole(x, first * state, first * cell, self.weight_xc, self.weight_hc, self.bias_c)
            return made if self.expose_hidden else made[0]
        inputs = F.linear(x, self.weight_xc, self.bias_c)
        if self.weight_static is not None:
            inputs = inputs + F.linear(rest[0].flatten(1), self.weight_static)
        states = []
        for gates, keep in zip(inputs.unbind(0), cont.detach()[..., None].unbind(0), strict=True):
            cell, state = lstm_step(cell, gates + F.linear(keep * state, self.weight_hc), keep)
            states.append(state)
        outputs = torch.stack(states)
        return (outputs, state[None], cell[None]) if self.expose_hidden else outputs


class RNN(nn.Module):
    """x [T, N, ...], cont [T, N] (, static [N, ...]) (, state [1, N, D]) -> outputs [T, N, D] (, the last state).

    state = tanh(W_hh cont state + W_xh x + b_h), output = tanh(W_ho state + b_o). The state starts from zero if it is no input.
    """

    def __init__(self, features: int, hidden: int, static: int | None = None, expose_hidden: bool = False) -> None:
        super().__init__()
        self.hidden, self.expose_hidden = hidden, expose_hidden
        self.weight_xh = nn.Parameter(torch.empty(hidden, features))
        self.bias_h = nn.Parameter(torch.empty(hidden))
        self.weight_static = None if static is None else nn.Parameter(torch.empty(hidden, static))
        self.weight_hh = nn.Parameter(torch.empty(hidden, hidden))
        self.weight_ho = nn.Parameter(torch.empty(hidden, hidden))
        self.bias_o = nn.Parameter(torch.empty(hidden))

    def forward(self, x: Tensor, cont: Tensor, *rest: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        inputs = F.linear(x.flatten(2), self.weight_xh, self.bias_h)
        if self.weight_static is not None:
            inputs = inputs + F.linear(rest[0].flatten(1), self.weight_static)
        state = rest[-1][0] if self.expose_hidden else inputs.new_zeros(x.shape[1], self.hidden)
        states = []
        for given, keep in zip(inputs.unbind(0), cont.detach()[..., None].unbind(0), strict=True):
            state = (given + F.linear(keep * state, self.weight_hh)).tanh()
            states.append(state)
        outputs = F.linear(torch.stack(states), self.weight_ho, self.bias_o).tanh()
        return (outputs, state[None]) if self.expose_hidden else outputs


class ClippedLSTM(nn.Module):
    """x [T * streams, ...] (, clip [T * streams], 0 where a stream restarts) -> [T * streams, D], from a state of zero.

    The gradient of the gates is cut to -threshold .. threshold. From github.com/junhyukoh/caffe-lstm.
    """

    def __init__(self, features: int, hidden: int, streams: int = 1, threshold: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.streams, self.threshold = hidden, streams, threshold
        self.weight_x = nn.Parameter(torch.empty(4 * hidden, features))
        self.weight_h = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))

    def forward(self, x: Tensor, clip: Tensor | None = None) -> Tensor:
        x = x.flatten(1)
        kept = None if clip is None else (clip.detach() != 0).to(x.dtype).reshape(-1, self.streams, 1)
        state = cell = x.new_zeros(self.streams, self.hidden)
        if not self.threshold and (kept is None or unbroken(kept)) and not torch.compiler.is_compiling():
            return whole(x.unflatten(0, (-1, self.streams)), state, cell, self.weight_x, self.weight_h, self.bias)[0].flatten(0, 1)
        inputs = F.linear(x, self.weight_x, self.bias).unflatten(0, (-1, self.streams))
        states = []
        for step, given in enumerate(inputs.unbind(0)):
            gates = given + F.linear(state if kept is None else state * kept[step], self.weight_h)
            if self.threshold and gates.requires_grad:
                gates.register_hook(lambda g: g.clamp(-self.threshold, self.threshold))
            cell, state = lstm_step(cell, gates, 1.0 if kept is None else kept[step])
            states.append(state)
        return torch.cat(states)
