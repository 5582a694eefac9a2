"""Hostile files: mutate the corpus, read the result, and count what is not one of our errors.

    nice python benchmarks/fuzz.py [--inputs 1000000] [--seed 0] [--only NAME ...] [--keep]

Each reader gets its share of inputs, made from its own seeds by cuts, flips, repeats, splices and numbers at the edges. One input in forty is
traced: if it reaches a line that none has reached before, it becomes a seed itself. `--keep` writes those of the smallest that together
reach every line to benchmarks/seeds, where they stay, and where the tests read them.

A finding is an exception outside of our tree, more than five seconds of the processor for one input, more than a gigabyte beyond what the
imports took, or a process that dies; its input is saved in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from prototxt.wire import varint  # noqa: E402

CORPUS = ROOT / "tests/conformance"
SEEDS = ROOT / "benchmarks/seeds"
EDGES = (0, 1, 2, 7, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
TOKENS = (b"{", b"}", b"<", b">", b"[", b"]", b":", b";", b",", b'"', b"'", b"#", b"\\", b"\n", b" ", b"-", b"1e999", b"0x", b"inf", b"nan",
          b"layer {", b"dim: ", b"\t", b"\0", b"NA")  # fmt: skip
TRACED = 40  # one input of so many is traced
MEMORY = 1 << 30

Read = Callable[[Path], object]


@dataclass
class Reader:
    """A reader, its seeds, its share of all inputs; `prepare` makes the folder in which the file `name` is replaced by each input."""

    seeds: list[bytes]
    read: Read
    share: float = 1.0
    name: str = "input"
    prepare: Callable[[Path], object] = lambda folder: None
    seen: set[tuple[str, int]] = field(default_factory=set)


def mutate(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a seed: mostly one change, sometimes up to five."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        at = rng.randint(0, len(data))
        match rng.randrange(11):
            case 0:
                del data[at:]
            case 1 if data:
                data[min(at, len(data) - 1)] = rng.randrange(256)
            case 2 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 3:
                data[at:at] = varint(rng.choice(EDGES))
            case 4:
                number = varint(rng.choice(EDGES))
                data[at : at + len(number)] = number
            case 5:
                width = rng.choice((2, 4, 8))
                data[at : at + width] = (rng.choice(EDGES) & (1 << 8 * width) - 1).to_bytes(width, rng.choice(("little", "big")))
            case 6:
                data[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 2, 200))
            case 7:
                del data[at : at + rng.randint(1, 16)]
            case 8:
                start = rng.randint(0, len(other))
                data[at:at] = other[start : start + rng.randint(1, 64)]
            case 9:
                piece = bytes(data[at : at + rng.randint(1, 32)])
                data[at:at] = piece * rng.choice((1, 2, 50))
            case 10 if data:
                data[min(at, len(data) - 1)] = (data[min(at, len(data) - 1)] + rng.choice((-1, 1))) & 255
    return bytes(data)


def seeds(*patterns: str, limit: int = 4000) -> list[bytes]:
    """Files of the corpus, none longer than `limit`."""
    found = [p.read_bytes() for pattern in patterns for p in sorted(CORPUS.glob(pattern))]
    return [data for data in dict.fromkeys(found) if len(data) <= limit]


def readers() -> dict[str, Reader]:
    """Every reader that takes a file of others."""
    import leveldb_table
    import numpy as np

    import prototxt
    from converters.resolution import resolve
    from converters.summary import fit
    from prototxt import data as d
    from prototxt.data import hdf5, images, snappy, windows
    from prototxt.data.datum import encode, parse
    from prototxt.models import read_model
    from prototxt.net import read_net
    from prototxt.states import read_state
    from prototxt.weights import read_weights

    def text(path: Path) -> object:
        message = prototxt.parse(path)
        again = prototxt.parse_text(prototxt.to_text(message))
        assert again == message, "parse(print(x)) is not x"
        return prototxt.upgrade(message)

    def weights(path: Path) -> object:
        return [float(np.asarray(blob.values, np.float64).sum()) for layer in read_weights(path) for blob in layer.blobs]

    def carried(path: Path) -> object:
        return read_net(path), resolve(path)

    def records(path: Path) -> object:
        source = d.Records(d.open_database(path.parent))
        return [source[i] for i in range(40) if source.has(i)] + [source.batch(range(3)) if source.has(2) else None]

    def rows(path: Path) -> object:
        return [a.sum() for name in ("data", "label") for a in hdf5.load(path, [name])]

    def labels(path: Path) -> object:
        listed = d.LabelList(path)
        return [listed[i] for i in range(min(8, len(listed)))]

    def names(path: Path) -> object:
        found = d.Pictures(path)
        return [found[i] for i in range(min(2, len(found)))]

    def database(kind: str) -> Callable[[Path], object]:
        return lambda folder: shutil.copytree(CORPUS / f"data/{kind}/db", folder, dirs_exist_ok=True)

    def some_pictures(folder: Path) -> object:
        return [shutil.copy(CORPUS / f"data/images_color/p{i}.png", folder) for i in range(5)]

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (3, 4, 5), dtype=np.uint8), rng.standard_normal((1, 2, 6)).astype(np.float32)]
    entries = [(f"{i:08d}".encode(), i + 1, encode(pictures[0], i)) for i in range(24)]

    def tables(folder: Path) -> object:
        return leveldb_table.write(folder, {0: [entries[:7]], 1: [entries[7:15], entries[15:20]]}, [entries[20:]])

    with tempfile.TemporaryDirectory() as made:
        tables(Path(made))
        manifest = [(Path(made) / "MANIFEST-000004").read_bytes()]
        made_tables = [p.read_bytes() for p in sorted(Path(made).iterdir()) if p.suffix in (".ldb", ".sst")]
    blocks = [leveldb_table.snappy(bytes(rng.integers(0, 3, 400, dtype=np.uint8))), leveldb_table.snappy(b"a" * 500 + b"abcdef" * 30)]
    graph = resolve(CORPUS / "nets/lenet-deploy.prototxt")
    with tempfile.TemporaryDirectory() as made:
        from safetensors.numpy import save_file

        tensors = {"conv1.weight": np.ones((2, 3), np.float32), "x": np.zeros(4, np.float16)}
        save_file(tensors, Path(made) / "t.safetensors")
        safetensors = [(Path(made) / "t.safetensors").read_bytes()]
    windows_of = [p.read_bytes() for p in CORPUS.glob("data/window_*/windows.txt")]
    return {
        "prototxt": Reader(seeds("nets/*.prototxt", "formats/text/*.prototxt", "formats/upgrade_*/*.prototxt"), text, 1.5),
        "net": Reader(seeds("nets/*.prototxt", "layers/*/*.prototxt", limit=2000), resolve),
        "solver": Reader(seeds("solvers/*/solver.prototxt"), lambda p: prototxt.upgrade(prototxt.parse(p, kind="solver"))),
        "caffemodel": Reader(seeds("nets/*.caffemodel", "formats/weights_*/*.caffemodel", limit=3000), weights, 2),
        "net of a caffemodel": Reader(seeds("nets/*.caffemodel", "formats/weights_*/*.caffemodel", limit=3000), carried),
        "upgrade of a caffemodel": Reader(seeds("formats/weights_v*/*.caffemodel", "formats/weights_up*/*.caffemodel"), read_model),
        "caffemodel.h5": Reader(seeds("formats/weights_*/*.h5", limit=16000), weights, 0.5),
        "safetensors": Reader(safetensors, lambda p: fit(graph, p), 0.5, "input.safetensors"),
        "solverstate": Reader(seeds("formats/state_*/*.solverstate"), read_state, 1.5),
        "solverstate.h5": Reader(seeds("formats/state_*/*.h5", limit=16000), read_state, 0.5),
        "mean": Reader(seeds("formats/mean_*/*.binaryproto"), d.read_mean, 1.5),
        "datum": Reader([encode(p, 3) for p in pictures], lambda p: parse(p.read_bytes()).pixels(p.read_bytes()), 2),
        "lmdb": Reader(seeds("data/lmdb_*/db/data.mdb", limit=13000), records, 1, "data.mdb"),
        "leveldb log": Reader(seeds("data/leveldb_*/db/*.log"), records, 1, "000003.log", database("leveldb_raw_color")),
        "leveldb manifest": Reader(manifest, records, 1, "MANIFEST-000004", tables),
        "leveldb table": Reader(made_tables, records, 1, "000005.ldb", tables),
        "snappy": Reader(blocks, lambda p: snappy.uncompress(p.read_bytes()), 2),
        "hdf5 data": Reader(seeds("data/hdf5_*/*.h5", limit=8000), rows, 0.5),
        "image list": Reader(seeds("data/images_*/list.txt"), names, prepare=some_pictures),
        "label list": Reader([b"a.png\t0 1 1 0\nb c.png\t1 0 NA 1\n", b"a.png 1 2\nb.png 0.5 -3e2"], labels),
        "window file": Reader(windows_of, lambda p: windows.read_windows(p, 0.5, 0.5)),
        "picture": Reader(
            seeds("data/images_*/*.png", "data/images_*/*.jpg", "data/images_*/*.bmp"), lambda p: images.read_image(p, size=(5, 7)), 0.7
        ),
    }


def late(signum: int, frame: object) -> None:
    """One input took too long."""
    raise TimeoutError("more than five seconds")


def traced(read: Read, path: Path) -> tuple[set[tuple[str, int]], BaseException | None]:
    """The lines of our packages that reading reaches, and how it ended."""
    lines: set[tuple[str, int]] = set()
    ours = (str(ROOT / "prototxt"), str(ROOT / "converters"))

    def inner(frame: FrameType, event: str, argument: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return inner

    def outer(frame: FrameType, event: str, argument: Any) -> Any:
        return inner if frame.f_code.co_filename.startswith(ours) else None

    sys.settrace(outer)
    try:
        read(path)
    except BaseException as exc:
        return lines, exc
    finally:
        sys.settrace(None)
    return lines, None


def outcome(exc: BaseException | None) -> str:
    """`read`, `refused`, or the name of a finding."""
    from prototxt.errors import DecantError

    if exc is None:
        return "read"
    if isinstance(exc, DecantError):
        return "refused"
    return f"FINDING {type(exc).__name__}: {str(exc)[:80]}"


def fuzz(reader: Reader, inputs: int, rng: random.Random, folder: Path, kept: dict[int, bytes], save: str) -> collections.Counter[str]:
    """Outcomes of `inputs` mutated files; the inputs that reached new lines go to `kept`, by their number."""
    counts: collections.Counter[str] = collections.Counter()
    reader.prepare(folder)
    path, pool = folder / reader.name, list(reader.seeds)
    for seed in reader.seeds:
        path.write_bytes(seed)
        reader.seen |= traced(reader.read, path)[0]
    for n in range(inputs):
        data = mutate(rng.choice(pool), rng.choice(pool), rng)
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, 5)  # of the processor: other people's work does not count
        exc: BaseException | None = None
        try:
            if n % TRACED:
                reader.read(path)
            else:
                lines, exc = traced(reader.read, path)
                if not lines <= reader.seen and len(data) < 1 << 15:
                    reader.seen |= lines
                    pool.append(data)
                    kept[n] = data
        except KeyboardInterrupt:
            raise
        except BaseException as caught:  # that is what is looked for
            exc = caught
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        found = outcome(exc)
        counts[found] += 1
        if found.startswith("FINDING") and counts[found] < 4:
            (Path(tempfile.gettempdir()) / f"decant-finding-{save.replace(' ', '-')}-{n}").write_bytes(data)
    return counts


def peak() -> int:
    """Bytes of the process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_child(name: str, reader: Reader, inputs: int, seed: int, keep: bool) -> tuple[collections.Counter[str], float, int]:
    """Fuzz one reader in a process of its own, so that a crash is a finding: outcomes, seconds, bytes beyond the start."""
    start, (read_end, write_end) = time.perf_counter(), os.pipe()
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        child = os.fork()
        if child == 0:
            os.close(read_end)
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
            signal.signal(signal.SIGPROF, late)
            warnings.simplefilter("ignore")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the picture libraries have to say
            before, kept = peak(), dict[int, bytes]()
            counts = fuzz(reader, inputs, random.Random(f"{seed} {name}"), Path(folder), kept, name)
            if keep:
                save_seeds(name, reader, kept, Path(folder))
            os.write(write_end, json.dumps([counts, peak() - before]).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        if told:
            counts, grown = json.loads(told)
            return collections.Counter(counts), time.perf_counter() - start, grown
        shutil.copy(Path(folder) / reader.name, Path(tempfile.gettempdir()) / f"decant-finding-{name.replace(' ', '-')}-death")
        return collections.Counter({f"FINDING the process ended with {status}": 1}), time.perf_counter() - start, 0


def save_seeds(name: str, reader: Reader, kept: dict[int, bytes], folder: Path) -> None:
    """Write the smallest inputs that together reach every line which the corpus does not."""
    path = folder / reader.name
    reached: set[tuple[str, int]] = set()
    for seed in reader.seeds:
        path.write_bytes(seed)
        reached |= traced(reader.read, path)[0]
    home = SEEDS / name.replace(" ", "-")
    for number, data in enumerate(sorted(kept.values(), key=len)):
        path.write_bytes(data)
        lines, _ = traced(reader.read, path)
        if not lines <= reached and len(data) <= 4096:
            reached |= lines
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{number:03d}").write_bytes(data)


def main() -> None:
    """Fuzz all readers by their shares, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--keep", action="store_true", help="add to benchmarks/seeds")
    args = parser.parse_args()
    everything = {name: reader for name, reader in readers().items() if not args.only or name in args.only}
    for name, reader in everything.items():
        reader.seeds += [p.read_bytes() for p in sorted((SEEDS / name.replace(" ", "-")).glob("*"))]
    shares = sum(reader.share for reader in everything.values())
    total, found = 0, 0
    print(f"{'reader':<24} {'inputs':>9} {'read':>9} {'refused':>9} findings  seconds  MB more")
    for name, reader in everything.items():
        counts, seconds, grown = in_child(name, reader, -int(-args.inputs * reader.share // shares), args.seed, args.keep)
        findings = {k: v for k, v in counts.items() if k.startswith("FINDING")}
        total, found = total + sum(counts.values()), found + sum(findings.values())
        row = (sum(counts.values()), counts["read"], counts["refused"], sum(findings.values()), seconds, grown / 1e6)
        print(f"{name:<24} {row[0]:>9,} {row[1]:>9,} {row[2]:>9,} {row[3]:>8} {row[4]:>8.0f} {row[5]:>8.0f}", flush=True)
        for kind, count in sorted(findings.items(), key=lambda kv: -kv[1])[:12]:
            print(f"    {count:>6} x {kind}")
    print(f"{total:,} inputs, {found} findings")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
