"""Reading Caffe's files, beside protobuf: `python benchmarks/formats.py`.

The large caffemodel is VGG-16's, written to a temporary folder with random weights.
"""

from __future__ import annotations

import tempfile
from math import prod
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from measure import ROOT, in_process, medians, report

import prototxt
from converters.resolution import resolve
from prototxt.message import new
from prototxt.schema import caffe_pb2
from prototxt.wire import Blob
from prototxt.write_weights import write_caffemodel

NETS = ROOT / "prototxt/nets"

# Peak resident memory beyond what the imports took, of one way to read a file, in a fresh process.
CHILD = """
import json, time
import numpy as np
from prototxt.weights import read_weights
from prototxt.schema import caffe_pb2
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
def rounds(run, n):
    times = []
    for _ in range(n):
        start = time.perf_counter(); cpu = time.process_time(); result = run()
        times.append((time.perf_counter() - start, time.process_time() - cpu)); del result
    return sorted(times)[len(times) // 2]
def ours():
    return float(sum(blob.view.sum() for layer in read_weights({path!r}) for blob in layer.blobs))
def mapped():
    return read_weights({path!r})
def theirs():
    net = caffe_pb2.NetParameter.FromString(open({path!r}, "rb").read())
    return float(sum(np.array(blob.data, dtype=np.float32).sum() for layer in net.layer for blob in layer.blobs))
before = peak()
wall, cpu = rounds({way}, {n})
print(json.dumps({{"wall": wall, "cpu": cpu, "peak": peak() - before}}))
"""

MODULE_CHILD = """
import json, time
import torch
from converters import resolve
from converters.net import build
net = build(resolve({net!r}))
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
size = sum(p.numel() * 4 for p in net.module.state_dict().values())
before = peak()
start = time.process_time()
net.load({path!r})
print(json.dumps({{"cpu": time.process_time() - start, "grown": peak() - before, "module": size}}))
"""


def parsing() -> list[tuple[str, str, str]]:
    rows = []
    for name in ("resnet152", "googlenet", "squeezenet_v1.1"):
        text = (NETS / f"{name}.prototxt").read_text()
        contenders = {
            "ours": lambda text=text: prototxt.parse_text(text),
            "text_format": lambda text=text: text_format.Parse(text, caffe_pb2.NetParameter()),
        }
        t = medians(contenders)
        ratio = t["text_format"] / t["ours"]
        figure = f"{1e3 * t['ours']:.1f} ms, text_format {1e3 * t['text_format']:.1f} ms: **{ratio:.1f}x**"
        rows.append((f"parse {name}.prototxt ({len(text) / 1e3:.0f} kB)", figure, ">= 3x"))
    return rows


def weights(folder: Path) -> list[tuple[str, str, str]]:
    graph = resolve(NETS / "vgg16.prototxt")
    generator = np.random.default_rng(0)
    blobs = [
        [Blob(p.blob.shape, False, generator.standard_normal(prod(p.blob.shape), dtype=np.float32)) for p in step.params] for step in graph.steps
    ]
    path = folder / "vgg16.caffemodel"
    write_caffemodel(path, new("NetParameter", name="VGG-16", layer=[step.spec for step in graph.steps]), blobs)
    del blobs
    size = path.stat().st_size
    run = {way: in_process(CHILD.format(path=str(path), way=way, n=n)) for way, n in (("mapped", 9), ("ours", 5), ("theirs", 3))}
    module = in_process(MODULE_CHILD.format(net=str(NETS / "vgg16.prototxt"), path=str(path)))
    mb = f"{size / 1e6:.0f} MB"
    return [
        (f"map a caffemodel of {mb}", f"{1e3 * run['mapped']['wall']:.2f} ms", "< 5 ms"),
        (
            f"read all values of {mb}",
            f"{1e3 * run['ours']['cpu']:.0f} ms, protobuf + numpy {1e3 * run['theirs']['cpu']:.0f} ms: "
            f"**{run['theirs']['cpu'] / run['ours']['cpu']:.1f}x**",
            ">= 10x",
        ),
        ("peak memory of that", f"{run['ours']['peak'] / size:.2f}x the file, protobuf {run['theirs']['peak'] / size:.2f}x", "<= 1.05x"),
        (
            "load into the module",
            f"{1e3 * module['cpu']:.0f} ms; memory beyond the module {module['grown'] / module['module']:.2f}x of it",
            "<= 0.10x",
        ),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report("Formats", parsing() + weights(Path(folder)))


if __name__ == "__main__":
    main()
