"""Reading an LMDB of Datum as batches of tensors, beside the dataset that people write: `python benchmarks/data.py [--images 10000]`.

The peer is a torch Dataset over the lmdb and protobuf modules: one transaction and one parsed message a record, `np.frombuffer`, mean and
scale in numpy, torch's own collate. Both give float32 batches of 64 in the main process. Each reader has a process of its own per round, and
they take turns. Memory is what the process's own pages (RssAnon) grew by from the tenth batch to the end of the epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import lmdb
import numpy as np
from measure import in_process, report

from prototxt.data.datum import datum

BATCH = 64

CHILD = """
import json, time, warnings
import torch
torch.set_num_threads(1)
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

def ours():
    from pycls.datasets import loader
    return (tuple(batch.values()) for batch in loader({net!r}, "TEST", drop_last=True))

def theirs():
    import lmdb
    import numpy as np
    from prototxt.schema import caffe_pb2

    class DatumDataset(torch.utils.data.Dataset):
        def __init__(self, path):
            self.env = lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False)
            with self.env.begin(write=False) as txn:
                self.keys = [key for key, _ in txn.cursor()]
            self.mean = np.array([104, 117, 123], np.float32).reshape(3, 1, 1)
        def __len__(self):
            return len(self.keys)
        def __getitem__(self, index):
            with self.env.begin(write=False) as txn:
                value = txn.get(self.keys[index])
            datum = caffe_pb2.Datum()
            datum.ParseFromString(value)
            image = np.frombuffer(datum.data, dtype=np.uint8).reshape(datum.channels, datum.height, datum.width)
            image = (image.astype(np.float32) - self.mean) * np.float32(0.017)
            return torch.from_numpy(image), datum.label

    return torch.utils.data.DataLoader(DatumDataset({db!r}), batch_size={batch}, drop_last=True)

batches, seen, check, early = {way}(), 0, 0.0, 0
wall, cpu = time.perf_counter(), time.process_time()
for n, (images, labels) in enumerate(batches):
    seen += len(images)
    if n % 40 == 0:
        check += float(images[0, :, 0].sum()) + float(labels.sum())
    if n == 10:
        early = anonymous()
print(json.dumps({{"seen": seen, "check": check, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "grown": anonymous() - early}}))
"""


def write(folder: Path, images: int, side: int) -> tuple[str, str]:
    """An LMDB as convert_imageset lays it out, and a net with a Data layer over it."""
    rng = np.random.default_rng(0)
    database = folder / f"lmdb_{side}"
    with lmdb.open(str(database), map_size=images * (3 * side * side + 8192) * 2 + (1 << 24)) as env:
        for start in range(0, images, 500):
            with env.begin(write=True) as transaction:
                for i in range(start, min(images, start + 500)):
                    record = datum((3, side, side), rng.bytes(3 * side * side), int(rng.integers(1000)))
                    transaction.put(f"{i:08d}_image_{i}.png".encode(), record)
    net = folder / f"net_{side}.prototxt"
    net.write_text(
        f'layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "{database}" backend: LMDB batch_size: {BATCH} }} '
        "transform_param { mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.017 } }"
    )
    return str(net), str(database)


def measured(net: str, db: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each way; one unmeasured round first, which brings the file into memory."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for n in range(rounds + 1):
        for way, kept in runs.items():
            found = in_process(CHILD.format(net=net, db=db, way=way, batch=BATCH))
            if n:
                kept.append(found)
    assert np.isclose(runs["ours"][0]["check"], runs["theirs"][0]["check"], rtol=1e-4), "the readers differ"
    return {way: {key: statistics.median(run[key] for run in kept) for key in kept[0]} for way, kept in runs.items()}


def main() -> None:
    """Both sizes, one row each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for side in (32, 256):
        with tempfile.TemporaryDirectory() as folder:
            run = measured(*write(Path(folder), args.images, side), args.rounds)
        speed = {way: found["seen"] / found["cpu"] for way, found in run.items()}
        rows.append(
            (
                f"LMDB of {args.images:,} Datum of 3x{side}x{side} to batches",
                f"{speed['ours']:,.0f} images/s, Dataset with protobuf {speed['theirs']:,.0f}: **{speed['ours'] / speed['theirs']:.1f}x**",
                ">= 3x",
            )
        )
        grown = {way: max(0.0, found["grown"]) / 1e6 for way, found in run.items()}
        rows.append(("memory over that epoch", f"+{grown['ours']:.1f} MB, Dataset +{grown['theirs']:.1f} MB", "flat"))
    report("Data", rows)


if __name__ == "__main__":
    main()
