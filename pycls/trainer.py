"""The loop of `train`: tests, display and snapshots where the solver asks for them, and a clean stop on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from .solver import Solver


@dataclass
class _Stop:
    """Whether a signal has asked the run to end after its iteration."""

    asked: bool = False


def train(solver: Solver, say: Callable[[str], None]) -> bool:
    """Run to max_iter; False if a signal ended the run before. Order of an iteration: test, step, display, snapshot, as in Caffe."""
    settings, start = solver.settings, solver.iteration
    clock, last = time.perf_counter(), start
    with _stoppable() as stop:
        while solver.iteration < settings.max_iter and not stop.asked:
            iteration = solver.iteration
            if settings.test_interval and iteration % settings.test_interval == 0 and (iteration > 0 or settings.test_initialization):
                _test(solver, say)
            rate, loss = solver.lr, solver.step()
            if settings.display and iteration % settings.display == 0:
                now = time.perf_counter()
                speed = (iteration + 1 - last) / max(now - clock, 1e-9)
                say(f"iteration {iteration}, loss {solver.smoothed_loss:.6g} (this one {loss:.6g}), lr {rate:.6g}, {speed:.1f} iterations/s")
                clock, last = now, iteration + 1
            if settings.snapshot and solver.iteration % settings.snapshot == 0:
                say(f"wrote {solver.snapshot()}")
    written = settings.snapshot and solver.iteration % settings.snapshot == 0 and solver.iteration > start
    if (settings.snapshot_after_train or stop.asked) and not written:
        say(f"wrote {solver.snapshot()}")
    if not stop.asked and settings.test_interval and solver.iteration % settings.test_interval == 0:
        _test(solver, say)
    return not stop.asked


def _test(solver: Solver, say: Callable[[str], None]) -> None:
    for index in range(len(solver.tests)):
        for name, value in solver.test(index).items():
            shown = ", ".join(f"{v:.6g}" for v in value.flatten()[:10].tolist())
            say(f"iteration {solver.iteration}, test net {index}: {name} = {shown}")


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Signals set a flag while the block runs; a second one acts as usual."""
    stop = _Stop()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(s) for s in signals]

    def ask(signum: int, frame: FrameType | None) -> None:
        stop.asked = True
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)

    for s in signals:
        signal.signal(s, ask)
    try:
        yield stop
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
