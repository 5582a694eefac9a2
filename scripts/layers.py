"""Make docs/layers.md of the rules: `python scripts/layers.py`. A test holds the page against them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WITH_DATA = ("Data", "HDF5Data", "HDF5Output", "ImageData", "MemoryData", "WindowData")  # tests/conformance/data

HEAD = """# Layers

Every layer type that Decant knows, from its rules; `python scripts/layers.py` makes this page. "exact" means that real Caffe's recorded
numbers agree, forward and backward; "by its definition" that the corpus has no numbers of this type, which a fork defines. What
differs on purpose stands in [caffe-differences.md](caffe-differences.md). A type that is not here is refused by name;
[adding-a-layer.md](adding-a-layer.md) shows two ways out.

| type | family | how | ONNX |
|---|---|---|---|
"""


def page() -> str:
    """The page's text."""
    from converters.registry import rules

    rows = []
    for name, rule in sorted(rules().items(), key=lambda item: item[0].lower()):
        family = rule.make.__module__.rpartition(".")[2]
        recorded = name in WITH_DATA or (ROOT / "tests/conformance/layers" / name).is_dir()
        how = "exact" if recorded else "by its definition"
        how += f"; {rule.differs}" if rule.differs else ""
        onnx = f"no: {rule.onnx}" if rule.onnx else "yes"
        rows.append(f"| {name} | {family} | {how} | {onnx} |\n")
    return HEAD + "".join(rows)


def main() -> None:
    (ROOT / "docs/layers.md").write_text(page())


if __name__ == "__main__":
    main()
