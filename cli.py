"""The command line: one thin function a command. Options, one call into a library, print, exit status.

0 done and proven, 1 done but it differs or falls short, 2 the input is at fault.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="decant",
    help="Takes networks out of Caffe: a prototxt and a caffemodel become a PyTorch model, readable source, ONNX, and a proof of equality.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Net = Annotated[Path, typer.Argument(help="A .prototxt.", show_default=False)]
Weights = Annotated[Path | None, typer.Option("--weights", "-w", help="A .caffemodel, .caffemodel.h5 or .safetensors.", show_default=False)]
Phase = Annotated[str, typer.Option(help="TRAIN or TEST.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="A stage of the net's state; may come several times.", show_default=False)]
Level = Annotated[int, typer.Option(help="The level of the net's state.")]
Shapes = Annotated[
    list[str] | None, typer.Option("--shape", help="blob=1,3,224,224: the shape of an input; may come several times.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")]


@app.command()
def inspect(
    net: Net,
    weights: Weights = None,
    phase: Phase = "TEST",
    stage: Stages = None,
    level: Level = 0,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Layers, shapes, parameters, multiply-adds; with weights, how they fit. Imports no torch."""
    from converters import summary
    from converters.resolution import refuse_empty, resolve

    graph = resolve(net, phase.upper(), tuple(stage or ()), level, _shapes(shape))
    refuse_empty(graph, net)
    fit = summary.fit(graph, weights) if weights else None
    if as_json:
        facts = summary.to_dict(graph)
        if fit:
            facts["weights"] = {"loaded": fit.loaded, "kept": fit.kept, "unused": fit.unused, "wrong": fit.wrong}
        print(json.dumps(facts, indent=1))
    else:
        print(summary.text(graph, _width()), end="")
        _print_notes(graph.notes)
        if fit:
            print(f"\nweights: {len(fit.loaded)} layers fit by name, {len(fit.kept)} are missing, {len(fit.unused)} more are in the file")
            for name, listed in (("missing", fit.kept), ("in the file only", fit.unused)):
                if listed:
                    print(f"  {name}: {', '.join(listed)}")
            for problem in fit.wrong:
                print(f"  does not fit: {problem}")
    raise typer.Exit(1 if fit and (fit.wrong or fit.kept) else 0)


@app.command()
def convert(
    net: Net,
    weights: Weights = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; by default the net's name.", show_default=False)
    ] = None,
    phase: Phase = "TEST",
    stage: Stages = None,
    level: Level = 0,
    shape: Shapes = None,
    golden: Annotated[list[Path] | None, typer.Option(help="An .npz of real Caffe's numbers to compare with.", show_default=False)] = None,
    onnx: Annotated[bool, typer.Option(help="Write ONNX, and run it.")] = True,
    bake_preprocessing: Annotated[
        bool, typer.Option("--bake-preprocessing", help="Put mean, scale and channel order into the ONNX: RGB of 0..255 in.")
    ] = False,
    mean: Annotated[
        str | None, typer.Option(help="Channel means in the net's order, 104,117,123, or a mean .binaryproto.", show_default=False)
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Factor behind the mean.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="For fillers, where weights are missing.")] = 0,
    as_json: AsJson = False,
) -> None:
    """PyTorch source, safetensors, ONNX, preprocessing facts and the proof card, in one folder."""
    from converters import summary
    from converters.convert import Options
    from converters.convert import convert as run

    options = Options(
        phase=phase.upper(),
        stages=tuple(stage or ()),
        level=level,
        shapes=_shapes(shape),
        golden=tuple(golden or ()),
        onnx=onnx,
        bake_preprocessing=bake_preprocessing,
        mean=_mean(mean),
        scale=scale,
        seed=seed,
    )
    show = (lambda graph: None) if as_json else (lambda graph: print(summary.text(graph, _width())))
    done = run(net, weights, output, options, _stage, show)
    if as_json:
        print(json.dumps(done.card.to_dict() | {"files": [str(f) for f in done.files]}, indent=1))
    else:
        print(done.card.text())
        print("\n".join(f"wrote {path}" for path in done.files))
    raise typer.Exit(0 if done else 1)


@app.command()
def upgrade(
    source: Annotated[Path, typer.Argument(help="A net or solver of any age.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Where to write it as of today.", show_default=False)],
    solver: Annotated[bool, typer.Option("--solver", help="The file is a solver.")] = False,
) -> None:
    """V0 and V1 nets, net-level inputs, old solver types -> today's form, as Caffe's own tools write it."""
    import prototxt
    from prototxt.files import write_file

    message = prototxt.parse(source, kind="solver" if solver else "net")
    try:
        today = prototxt.upgrade(message)
    except prototxt.DecantError as exc:
        raise type(exc)(f"{source}: {exc}") from exc
    write_file(target, prototxt.to_text(today))
    print(f"wrote {target}" + ("" if today != message else ": the file was of today already"))


@app.command()
def train(
    solver: Annotated[Path, typer.Argument(help="A solver.prototxt.", show_default=False)],
    weights: Weights = None,
    snapshot: Annotated[Path | None, typer.Option(help="A .solverstate to go on from.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Train as `caffe train` did, with the same numbers; a signal snapshots and stops."""
    import pycls
    from pycls.trainer import train as run

    if weights and snapshot:
        raise typer.BadParameter("a snapshot names its own weights; give one of the two", param_hint="--weights, --snapshot")
    with _stage("building the nets"):
        made = pycls.Solver(solver, weights=weights, restore=snapshot, device=_device(device))
    raise typer.Exit(0 if run(made, lambda line: print(line, flush=True)) else 1)


# What the commands share ----------------------------------------------------------------------------------------------


def _shapes(written: list[str] | None) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for item in written or []:
        blob, _, dims = item.rpartition("=")
        try:
            shapes[blob] = tuple(int(d) for d in dims.replace("x", ",").split(",") if d)
        except ValueError:
            blob = ""
        if not blob:
            raise typer.BadParameter(f"{item!r} is not blob=1,3,224,224", param_hint="--shape")
    return shapes


def _device(name: str) -> str:
    import torch

    from prototxt import SolverError

    kinds = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*kinds, *(["cuda"] if len(kinds) > 1 else [])):
        raise SolverError(f"--device {name}: this machine has {', '.join(kinds)}")
    return name


def _mean(written: str | None) -> tuple[float, ...]:
    if written is None:
        return ()
    try:
        return tuple(float(v) for v in written.split(","))
    except ValueError:
        from converters.preprocessing import channel_means

        return channel_means(Path(written))


def _print_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        print(f"note: {note}")


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120


@contextmanager
def _stage(text: str) -> Iterator[None]:
    """A long part: a spinner on a terminal, a line with its seconds elsewhere; both on stderr."""
    start = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(f"{text} ..."):
            yield
    else:
        yield
    print(f"{text}: {time.perf_counter() - start:.1f} s", file=sys.stderr)


def main() -> None:
    """Run the command line; every error that a user can cause ends in one message and status 2."""
    try:
        app()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as exc:
        if os.environ.get("DECANT_DEBUG"):
            raise
        from prototxt.errors import DecantError

        if isinstance(exc, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        known = isinstance(exc, (DecantError, MemoryError, OSError))
        hint = "" if known else f"\nthis is a defect of Decant ({type(exc).__name__}); DECANT_DEBUG=1 shows where"
        print(f"error: {exc}{hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
