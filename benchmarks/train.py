"""Training beside a loop in torch written by hand, in one process, taking turns: `python benchmarks/train.py [--rounds N] [--caffe BINARY]`.

Ours is everything that `train` runs: records from an LMDB, transformation, the check of labels, the pass, the check of the loss, the update.
The loop by hand has its batch in memory, channels_last, and torch.optim.SGD(fused=True). Images a second are of wall time, so they need a
machine that is otherwise idle; beside them stands the ratio of CPU time, in which the thread that reads counts too.
`--caffe` runs `caffe train` on the same solver and databases. `--gpu` is another job: ResNet-50 beside torchvision's, which needs a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, medians, report
from torch import Tensor, nn

import pycls
from prototxt.data.datum import datum
from pycls.machine import Machine, prepare
from pycls.updates import SGD

NETS = {"lenet": (64, (1, 28, 28), "digits"), "cifar10_quick": (100, (3, 32, 32), "cifar10"), "resnet20": (128, (3, 32, 32), "cifar10")}
STEPS = {"lenet": 20, "cifar10_quick": 4, "resnet20": 1}  # of a round, so that rounds take about as long


@contextlib.contextmanager
def inside(folder: str) -> Iterator[None]:
    """The working directory while the block runs."""
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(inplace=True),
        nn.Linear(500, 10),
    )  # fmt: skip


def cifar10_quick() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10),
    )  # fmt: skip


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.short = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.short(x))


def resnet20() -> nn.Module:
    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *(Block(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def groups(module: nn.Module, doubled: bool) -> list[dict[str, object]]:
    """Weights, and biases with twice the rate and no decay where the prototxt says so."""
    weights = [p for name, p in module.named_parameters() if not (doubled and name.endswith("bias"))]
    biases = [p for name, p in module.named_parameters() if doubled and name.endswith("bias")]
    return [{"params": weights}, *([{"params": biases, "lr": 0.002, "weight_decay": 0.0}] if biases else [])]


def by_hand(name: str) -> Callable[[int], None]:
    """So many steps of the loop in torch."""
    batch, shape, _ = NETS[name]
    module = globals()[name]().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(groups(module, name != "resnet20"), lr=0.001, momentum=0.9, weight_decay=0.0005, fused=True)
    images = torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(module(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    return steps


def write_database(folder: Path, shape: tuple[int, int, int], records: int = 2000) -> None:
    """An LMDB of random pictures and labels, as convert_imageset writes it."""
    import lmdb

    generator = np.random.default_rng(0)
    with lmdb.open(str(folder), map_size=1 << 28) as env, env.begin(write=True) as transaction:
        for i in range(records):
            pixels = generator.integers(0, 256, shape, dtype=np.uint8).tobytes()
            transaction.put(f"{i:08d}".encode(), datum(shape, pixels, int(generator.integers(10))))


def workplace(folder: Path) -> None:
    """The databases and the mean that the solvers name."""
    from prototxt.data import write_mean

    for name, size in (("digits", (1, 32, 32)), ("cifar10", (3, 32, 32))):
        (folder / name).mkdir()
        for part in ("train", "test"):
            write_database(folder / name / f"{part}_lmdb", size)
    write_mean(folder / "cifar10/mean.binaryproto", np.full((3, 32, 32), 120, np.float32))


def solver_of(name: str) -> pycls.Solver:
    return pycls.Solver(ROOT / f"prototxt/nets/training/{name}_solver.prototxt")


def steps_of(solver: pycls.Solver, count: int) -> None:
    for _ in range(count):
        solver.step()


def optimizers() -> tuple[str, str, str]:
    """The update alone, of LeNet's parameters: Caffe's SGD beside torch's fused one."""
    made = []
    for kind, more in ((SGD, {}), (torch.optim.SGD, {"fused": True})):
        module = lenet().to(memory_format=torch.channels_last)
        optimizer = kind(groups(module, True), lr=0.001, momentum=0.9, weight_decay=0.0005, **more)
        for p in module.parameters():
            p.grad = torch.randn_like(p)
        made.append(optimizer)
    ours, theirs = ([optimizer] for optimizer in made)
    t = medians({"ours": lambda: [o.step() for o in ours * 100], "theirs": lambda: [o.step() for o in theirs * 100]}, 25)
    return (
        "the update alone",
        f"{10 * t['ours']:.3f} ms, torch.optim.SGD(fused=True) {10 * t['theirs']:.3f} ms: {t['ours'] / t['theirs']:.2f} of its time",
        "<= 1.1",
    )


def caffe(binary: str, name: str, folder: Path) -> float:
    """Images a second of real Caffe on the same solver: 40 iterations after 10."""
    text = (ROOT / f"prototxt/nets/training/{name}_solver.prototxt").read_text()
    text = re.sub(r"test_\w+: .*|snapshot\w*: .*", "", text).replace("max_iter: ", "snapshot_after_train: false solver_mode: CPU # ")
    net = ROOT / f"prototxt/nets/training/{name}_train.prototxt"
    seconds = []
    for count in (10, 50):
        (folder / "caffe.prototxt").write_text(re.sub(r'net: ".*"', f'net: "{net}"', text) + f"\nmax_iter: {count}\n")
        start = time.perf_counter()
        subprocess.run([binary, "train", "-solver", "caffe.prototxt"], cwd=folder, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return 40 * NETS[name][0] / (seconds[1] - seconds[0])


def gpu(batch: int = 256, count: int = 30) -> None:
    """ResNet-50 on synthetic 224 px: bf16, channels_last, compiled, beside torchvision's with torch's SGD."""
    import torchvision

    device = torch.device("cuda")
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        text = (ROOT / "prototxt/nets/resnet50.prototxt").read_text()
        text = text.replace("dim: 1 dim: 3", f"dim: {batch} dim: 3")
        label = f'layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: {batch} }} }} }}'
        loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc1000" bottom: "label" top: "loss" }'
        Path("net.prototxt").write_text(text[: text.index('layer {\n  name: "prob"')] + label + loss)
        Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0001 max_iter: 1000000')
        images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last).pin_memory()
        labels = torch.randint(0, 1000, (batch,)).pin_memory()
        machine = prepare(Machine("cuda", amp="bf16", compile=True))
        solver = pycls.Solver("solver.prototxt", machine=machine, feed=[{"data": images, "label": labels.float().pin_memory()}])
        module = torchvision.models.resnet50().to(device, memory_format=torch.channels_last).train()
        compiled = torch.compile(module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)

        def hand() -> None:
            for _ in range(count):
                x, y = (t.to(device, non_blocking=True) for t in (images, labels))
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cuda", torch.bfloat16):
                    loss = nn.functional.cross_entropy(compiled(x), y)
                loss.backward()
                optimizer.step()
            loss.item()

        def ours() -> None:
            steps_of(solver, count)
            torch.cuda.synchronize()

        t = medians({"ours": ours, "theirs": hand}, 5, wall=True)
    speed = {name: batch * count / seconds for name, seconds in t.items()}
    row = f"{speed['ours']:.0f} img/s, torchvision's {speed['theirs']:.0f}: **{speed['ours'] / speed['theirs']:.2f}x**"
    report(f"ResNet-50, 224 px, batch {batch}, on {torch.cuda.get_device_name()}", [("bf16, channels_last, compiled", row, ">= 0.97x")])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=NETS, nargs="*", default=list(NETS))
    parser.add_argument("--caffe", help="caffe's command line tool")
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    if options.gpu:
        gpu()
        return
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        workplace(Path(folder))
        for name in options.only:
            solver, hand, count = solver_of(name), by_hand(name), STEPS[name]
            contenders = {"ours": lambda s=solver, n=count: steps_of(s, n), "theirs": lambda h=hand, n=count: h(n)}
            t, cpu = medians(contenders, options.rounds, wall=True), medians(contenders, options.rounds)
            images = NETS[name][0] * count
            row = f"{images / t['ours']:.0f} img/s, by hand {images / t['theirs']:.0f}: **{t['theirs'] / t['ours']:.2f}x**"
            row += f"; in CPU time, the reading thread's too, {cpu['theirs'] / cpu['ours']:.2f}x"
            if options.caffe:
                row += f", Caffe {caffe(options.caffe, name, Path(folder)):.0f} in wall time"
            rows.append((f"{name}, batch {NETS[name][0]}", row, ">= 0.97x"))
        rows.append(optimizers())
    report(f"Training, {options.threads} thread for torch, one that reads, {options.rounds} rounds", rows)


if __name__ == "__main__":
    main()
