"""A comparison of every blob against its two forward passes, on one core: `python benchmarks/compare.py [net.prototxt]`.

A pass is each framework's own fastest call, with all that it can fuse; the comparison is the whole of it, runners built before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from measure import ROOT, medians, report


def main() -> None:
    if hasattr(os, "sched_setaffinity"):  # before the frameworks count the cores
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    from converters.comparison import engine
    from converters.comparison.sources import Context

    torch.set_num_threads(1)
    net = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "prototxt/nets/googlenet.prototxt"
    rows = []
    for a, b in (("torch", "torch"), ("torch", "onnxruntime"), ("torch", "opencv")):
        pair = engine.paired(f"{a}:{net}", b, None, None, Context())
        jobs = {
            "A": lambda pair=pair: pair.a(pair.feed),
            "B": lambda pair=pair: pair.b(pair.feed),
            "compare": lambda pair=pair: engine.report_of(pair),
            "page": lambda pair=pair: engine.report_of(pair, previews=True),
        }
        seconds = medians(jobs, rounds=9)
        both, blobs = seconds["A"] + seconds["B"], len(engine.report_of(pair).blobs)
        told = f"{seconds['compare'] * 1e3:.0f} ms for {blobs} blobs, the two passes {both * 1e3:.0f} ms: "
        told += f"overhead **{seconds['compare'] / both - 1:.0%}**; with histograms and error maps {seconds['page'] / both - 1:.0%}"
        rows.append((f"{net.stem}, {a} and {b}", told, "<= 30 %"))
    report("Comparison, CPU time on one core", rows)


if __name__ == "__main__":
    main()
