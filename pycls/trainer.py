"""The loop of `train`: tests, display and snapshots where the solver asks for them, and a clean stop on SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from converters.net import CaffeNet
from prototxt import DecantError, FileProblem

from .progress import Progress, duration
from .runlog import RunLog
from .solver import Solver


@dataclass
class _Stop:
    """Whether a signal has asked the run to end after its iteration."""

    asked: bool = False


def train(solver: Solver, progress: Progress | None = None, log: RunLog | None = None) -> bool:
    """Run to max_iter; False if a signal ended the run before. Order of an iteration: test, step, display, snapshot, as in Caffe.

    In a world of several processes every one runs this; rank 0 tests, prints and logs.
    """
    run = _Run(solver, progress or Progress(quiet=True), log or RunLog(None))
    settings, start = solver.settings, solver.iteration
    with stoppable() as stop, run.progress.bar(settings.max_iter, start, solver.path.name):
        run.begin()
        stopped = False
        while solver.iteration < settings.max_iter and not stopped:
            if run.due(settings.test_interval) and (solver.iteration > 0 or settings.test_initialization):
                run.test()
            run.step()
            if run.due(settings.snapshot) and solver.iteration < settings.max_iter:
                run.snapshot()
            if solver.world.size == 1 or solver.device.type == "cpu" or run.due(10):  # to ask the others is to wait for a GPU
                stopped = solver.world.any(stop.asked, solver.device)
        if (settings.snapshot_after_train or stopped or run.due(settings.snapshot)) and solver.iteration > start:
            run.snapshot(last=True)
        if not stopped and run.due(settings.test_interval):
            run.test()
        run.end(stopped)
    return not stopped


class _Run:
    """What `train` does between two updates, and the clock that its figures come from."""

    def __init__(self, solver: Solver, progress: Progress, log: RunLog) -> None:
        self.solver, self.progress, self.log = solver, progress, log
        self.images = batch_size(solver.net) * solver.settings.iter_size * solver.world.size
        self.written = -1  # the iteration of the last snapshot
        self._restart()

    def _restart(self) -> None:
        self.since, self.at, self.waited = time.perf_counter(), self.solver.iteration, self.solver.feed.waited

    def begin(self) -> None:
        """Say what is to come."""
        s = self.solver
        device = f"{s.device}" + (f", {s.world.size} processes" if s.world.size > 1 else "")
        self.progress.say(f"{s.path}: {s.settings.type}, iteration {s.iteration} of {s.settings.max_iter}, batch {self.images}, on {device}")
        facts = {"solver": str(s.path), "type": s.settings.type, "max_iter": s.settings.max_iter, "batch": self.images, "device": str(s.device)}
        self.log.write("start", s.iteration, **facts, processes=s.world.size)

    def due(self, interval: int) -> bool:
        """Whether this iteration is a multiple of an interval; 0 never is."""
        return bool(interval) and self.solver.iteration % interval == 0

    def step(self) -> None:
        """One update; a line of it where `display` says so, and a record in the log at each of these, or else every hundredth."""
        shown, logged = self.due(self.solver.settings.display), self.due(self.solver.settings.display or 100)
        iteration, rate, loss = self.solver.iteration, self.solver.lr, self.solver.step()
        self.progress.at(self.solver.iteration, f"loss {loss:.4g}")
        if not logged:
            return
        seconds = max(time.perf_counter() - self.since, 1e-9)
        speed = (self.solver.iteration - self.at) / seconds
        wait = (self.solver.feed.waited - self.waited) / seconds
        left = (self.solver.settings.max_iter - self.solver.iteration) / speed
        self._restart()
        smoothed = self.solver.smoothed_loss
        self.log.write("train", iteration, loss=loss, smoothed_loss=smoothed, lr=rate, images_per_second=speed * self.images, data_wait=wait)
        if shown:
            self.progress.say(
                f"Iteration {iteration} ({speed:.4g} iter/s, {speed * self.images:.4g} img/s, data wait {wait:.0%}, {duration(left)} left), "
                f"loss = {smoothed:.6g}" + (f" (this one {loss:.6g})" if self.solver.settings.average_loss > 1 else "") + f", lr = {rate:.6g}"
            )

    def test(self) -> None:
        """All test nets, by rank 0; the others wait at their next meeting."""
        start = time.perf_counter()
        for index, net in enumerate(self.solver.tests if self.solver.world.main else ()):
            self.progress.say(f"Iteration {self.solver.iteration}, Testing net (#{index})")
            values = {name: value.flatten().tolist() for name, value in self.solver.test(index).items()}
            for line in output_lines(net, values, "Test net output"):
                self.progress.say(f"    {line}")
            self.log.write("test", self.solver.iteration, net=index, outputs={n: v[0] if len(v) == 1 else v for n, v in values.items()})
        self.since += time.perf_counter() - start  # the speed is that of training

    def snapshot(self, *, last: bool = False) -> None:
        """Write one. A full disk does not end a run before its last: it goes on, and tries again at the next."""
        start = time.perf_counter()
        if self.written == self.solver.iteration:
            return
        try:
            path = self.solver.snapshot()
        except FileProblem as exc:
            before = f"; the snapshot of iteration {self.written} is whole" if self.written >= 0 else ""
            if last or self.solver.world.size > 1:  # the others wait for this one
                raise DecantError(f"the snapshot of iteration {self.solver.iteration} is not written: {exc}{before}") from exc
            self.progress.say(f"warning: the snapshot of iteration {self.solver.iteration} is not written: {exc}{before}; training goes on")
            self.log.write("warning", self.solver.iteration, problem=str(exc))
            return
        self.written = self.solver.iteration
        self.progress.say(f"Snapshotting solver state to {path}")
        self.log.write("snapshot", self.solver.iteration, path=str(path))
        self.since += time.perf_counter() - start

    def end(self, stopped: bool) -> None:
        """The last word."""
        self.progress.say("Optimization stopped early." if stopped else "Optimization Done.")
        self.log.write("stop", self.solver.iteration, done=not stopped)


def batch_size(net: CaffeNet) -> int:
    """How many images a pass of the net takes: the first axis of its first input."""
    return next((shape[0] for value, shape in net.graph.values.items() if shape and value.version == 0), 1)


def output_lines(net: CaffeNet, values: dict[str, list[float]], title: str) -> list[str]:
    """Outputs as Caffe prints them: `Test net output #0: accuracy = 0.98`, losses with their weight."""
    weights = {value.blob: weight for value, weight in net.graph.losses}
    lines: list[str] = []
    for name, numbers in values.items():
        for number in numbers:
            weight = weights.get(name)
            loss = f" (* {weight:g} = {weight * number:.6g} loss)" if weight else ""
            lines.append(f"{title} #{len(lines)}: {name} = {number:.6g}{loss}")
    return lines


@contextmanager
def stoppable() -> Iterator[_Stop]:
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
