"""A comparison of every blob against its two forward passes: `python benchmarks/compare.py [net.prototxt]`.

The passes alone are each framework's own fastest call of the same runner; the comparison is the whole of it, runners built before.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measure import ROOT, medians, report


def main() -> None:
    import torch

    from converters.comparison import engine
    from converters.comparison.sources import Context

    torch.set_num_threads(1)
    net = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "prototxt/nets/googlenet.prototxt"
    rows = []
    for a, b in (("torch", "torch"), ("torch", "onnxruntime"), ("torch", "opencv")):
        pair = engine.paired(f"{a}:{net}", b, None, None, Context())
        wanted = engine._wanted(pair, (), engine.described(pair)[1])[0]
        passes = {
            "A alone": lambda pair=pair: pair.a(pair.feed),
            "B alone": lambda pair=pair: pair.b(pair.feed),
            "A, every blob": lambda pair=pair, wanted=wanted: [None for _ in pair.a.stream(pair.feed, wanted)],
            "B, every blob": lambda pair=pair, wanted=wanted: [None for _ in pair.b.stream(pair.feed, wanted)],
            "compare": lambda pair=pair: engine.report_of(pair, previews=False),
            "with histograms and maps": lambda pair=pair: engine.report_of(pair),
        }
        seconds = medians(passes, rounds=9)
        both = seconds["A alone"] + seconds["B alone"]
        shown = seconds["A, every blob"] + seconds["B, every blob"]
        whole = seconds["compare"]
        told = f"{whole * 1e3:.0f} ms for {len(wanted)} blobs; passes that show them {shown * 1e3:.0f} ms, plain ones {both * 1e3:.0f} ms"
        told += f": overhead **{whole / shown - 1:.0%}** and {whole / both - 1:.0%}; for a page {seconds['with histograms and maps'] / shown - 1:.0%}"
        rows.append((f"{net.stem}, {a} and {b}", told, "<= 30 %"))
    report("Comparison, CPU time of one thread", rows)


if __name__ == "__main__":
    main()
