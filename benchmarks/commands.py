"""The command line from the shell: `python benchmarks/commands.py [folder of a model]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import ROOT, report, wall_of

CLI = [sys.executable, "cli.py"]


def main() -> None:
    bare, torch = wall_of([sys.executable, "-c", "pass"]), wall_of([sys.executable, "-c", "import torch"])
    resnet = str(ROOT / "prototxt/nets/resnet152.prototxt")
    rows = [
        ("`python cli.py --help`", f"{wall_of([*CLI, '--help']):.2f} s; Python alone {bare:.2f} s", "< 0.3 s"),
        ("`python cli.py inspect` of ResNet-152", f"{wall_of([*CLI, 'inspect', resnet]):.2f} s; `import torch` alone {torch:.2f} s", "< 2 s"),
    ]
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared/models/nsfw_resnet50_thin"
    if model.is_dir():
        weights = next(model.glob("*.caffemodel"))
        with tempfile.TemporaryDirectory() as folder:
            convert = [*CLI, "convert", str(model / "deploy.prototxt"), "-w", str(weights), "-o", folder]
            with_onnx, without = wall_of(convert, 3), wall_of([*convert, "--no-onnx"], 3)
        size = weights.stat().st_size / 1e6
        rows.append((f"`convert` of {weights.name} ({size:.0f} MB), proof included", f"{with_onnx:.1f} s with ONNX", "< 15 s"))
        rows.append(("the same with `--no-onnx`", f"{without:.1f} s", "< 4 s"))
    report("Commands, wall time", rows)


if __name__ == "__main__":
    main()
