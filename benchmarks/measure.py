"""How the benchmarks measure: contenders take turns, medians count, in CPU time of one thread unless said otherwise."""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that `python benchmarks/x.py` finds the packages of the checkout

if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
    # glibc gives freed memory back at one moment and not at another; the page faults that follow are up to a tenth of a step, on one side by chance.
    for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        ctypes.CDLL(None).mallopt(parameter, 2**31 - 1 if parameter == -1 else 2**30)


def medians(contenders: dict[str, Callable[[], object]], rounds: int = 7, *, wall: bool = False) -> dict[str, float]:
    """Median seconds of each contender; one unmeasured round first."""
    clock = time.perf_counter if wall else time.process_time
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for n in range(rounds + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if n:
                times[name].append(clock() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def in_process(code: str) -> dict[str, float]:
    """Run Python code that prints one JSON object, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def wall_of(command: list[str], rounds: int = 5) -> float:
    """Median wall seconds of a command."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(title: str, rows: list[tuple[str, str, str]]) -> None:
    """A table for docs/performance.md: job, figure, goal."""
    print(f"\n{title} ({platform.machine()}, Python {platform.python_version()})\n")
    print("| job | measured | goal |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
