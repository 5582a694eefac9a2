"""The command line: one thin function a command. Options, one call into a library, print, exit status.

0 done and proven, 1 done but it differs or falls short, 2 the input is at fault.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pycls.commands import app as classify

app = typer.Typer(
    name="decant",
    help="Takes networks out of Caffe: a prototxt and a caffemodel become a PyTorch model, readable source, ONNX, and a proof of equality.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Net = Annotated[Path, typer.Argument(help="A .prototxt, or a .caffemodel, which carries its net.", show_default=False)]
Weights = Annotated[Path | None, typer.Option("--weights", "-w", help="A .caffemodel, .caffemodel.h5 or .safetensors.", show_default=False)]
Phase = Annotated[str, typer.Option(help="TRAIN or TEST.")]
Stages = Annotated[list[str] | None, typer.Option("--stage", help="A stage of the net's state; may come several times.", show_default=False)]
Level = Annotated[int, typer.Option(help="The level of the net's state.")]
Shapes = Annotated[
    list[str] | None, typer.Option("--shape", help="blob=1,3,224,224: the shape of an input; may come several times.", show_default=False)
]
Root = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Confine what files name (sources, means, entries of lists, snapshots) to this folder.", show_default=False
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
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
    """Layers, shapes, parameters, multiply-adds. With weights, how they fit. Imports no torch."""
    from converters import summary
    from converters.resolution import refuse_empty, resolve
    from prototxt import ShapeUnknown
    from prototxt.binary import is_binary
    from prototxt.models import read_model

    try:
        graph = resolve(net, phase.upper(), tuple(stage or ()), level, _shapes(shape))
    except ShapeUnknown as exc:
        if not is_binary(net) or as_json:
            raise
        print(summary.weights_text(read_model(net)), end="")
        print(f"note: {exc}")
        raise typer.Exit(0) from None
    refuse_empty(graph, net)
    fit = summary.fit(graph, weights) if weights else None
    if as_json:
        print(json.dumps(summary.to_dict(graph) | ({"weights": fit.to_dict()} if fit else {}), indent=1))
    else:
        print(summary.text(graph, _width()), end="")
        _print_notes(graph.notes)
        if fit:
            _print_fit(fit)
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
    reader: Annotated[str, typer.Option("--for", help="opencv: with the lines that use the ONNX file, and a check against OpenCV 4.")] = "",
    page: Annotated[bool, typer.Option("--page", help="Also the card as a page: the ONNX file against the module, blob by blob.")] = False,
    all: Annotated[bool, typer.Option("--all", help="NET is a folder of models: convert each, one row a model.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side with --all.")] = 1,
    as_json: AsJson = False,
) -> None:
    """PyTorch source, weights, ONNX and a proof card in one folder. With what the files say of preprocessing."""
    from converters import summary
    from converters.convert import Options
    from converters.convert import convert as run

    for name, asked in (("--for", reader), ("--bake-preprocessing", bake_preprocessing)):
        if asked and not onnx:
            raise typer.BadParameter("is about the ONNX file, which --no-onnx leaves out", param_hint=name)
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
        reader=_reader(reader),
        page=page,
    )
    if all:
        from converters.comparison import many

        rows = many.convert_all(net, options, output or Path("converted"), jobs, _row(as_json), weights=weights)
        raise typer.Exit(_rows(rows, as_json))
    show = (lambda graph: None) if as_json else (lambda graph: print(summary.text(graph, _width())))
    done = run(net, weights, output, options, _stage, show)
    if as_json:
        print(json.dumps(done.card.to_dict() | {"files": [str(f) for f in done.files]}, indent=1, allow_nan=False))
    else:
        print(done.card.text())
        print("\n".join(f"wrote {path}" for path in done.files))
    raise typer.Exit(0 if done else 1)


@app.command("to-caffe")
def to_caffe(
    source: Annotated[str, typer.Argument(help="A .prototxt, or module:callable that gives a torch module, run as code.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Where to write: OUTPUT.prototxt and OUTPUT.caffemodel.", show_default=False)],
    weights: Weights = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """A PyTorch module as layers of BVLC Caffe. For compilers that read nothing else; read back and compared."""
    import converters
    from converters.caffe_export.source import named

    with _stage(f"loading {source}"):
        module, example = named(source, weights, _shapes(shape))
    with _stage("writing, reading back"):
        made = converters.to_caffe(module, example, output)
    if as_json:
        facts = {"files": [str(made.prototxt), str(made.caffemodel)], "outputs": made.outputs, "layers": made.layers, "error": _finite(made.error)}
        print(json.dumps(facts, indent=1, allow_nan=False))
    else:
        print(f"wrote {made.prototxt} ({made.layers} layers; outputs {', '.join(made.outputs)})\nwrote {made.caffemodel}")
        print(f"read back, its outputs differ from the module's by {made.error:.1e} of their largest value")
    raise typer.Exit(0 if made else 1)


@app.command()
def draw(
    net: Net,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .svg or .html; by default the net's name with .svg.", show_default=False),
    ] = None,
    weights: Weights = None,
    phase: Phase = "TEST",
    stage: Stages = None,
    level: Level = 0,
    shape: Shapes = None,
) -> None:
    """The net as a picture, or as a page to walk through. With weights, how they fit. Imports no torch."""
    from converters import summary
    from converters.convert import file_name
    from converters.drawing.draw import draw as write
    from converters.resolution import refuse_empty, resolve

    graph = resolve(net, phase.upper(), tuple(stage or ()), level, _shapes(shape))
    refuse_empty(graph, net)
    fit = summary.fit(graph, weights) if weights else None
    print(f"wrote {write(graph, output or Path(f'{file_name(graph.name, net)}.svg'), fit.kept if fit else ())}")
    _print_notes(graph.notes)
    if fit:
        _print_fit(fit)
    raise typer.Exit(1 if fit and (fit.wrong or fit.kept) else 0)


@app.command()
def upgrade(
    source: Annotated[Path, typer.Argument(help="A net or solver of any age.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Where to write it as of today.", show_default=False)],
    solver: Annotated[bool, typer.Option("--solver", help="The file is a solver.")] = False,
) -> None:
    """Old nets and solvers in today's form. V0, V1, net-level inputs, as Caffe's tools write it; a .caffemodel with its weights, or its net."""
    import prototxt
    from prototxt.binary import is_binary, read_definition
    from prototxt.files import write_file

    if not solver and target.suffix == ".caffemodel":
        from prototxt.models import read_model, write_model

        write_model(target, read_model(source))
        print(f"wrote {target}")
        return
    carried = not solver and is_binary(source)
    message = read_definition(source) if carried else prototxt.parse(source, kind="solver" if solver else "net")
    try:
        today = prototxt.upgrade(message)
    except prototxt.DecantError as exc:
        raise type(exc)(f"{source}: {exc}") from exc
    write_file(target, prototxt.to_text(today))
    print(f"wrote {target}" + ("" if today != message else ": the file was of today already"))


@app.command()
def weights(
    source: Annotated[Path, typer.Argument(help="A .caffemodel, .h5, .safetensors, .pt, or a solver state.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="What to write, by its suffix: one of these.", show_default=False)],
    net: Annotated[Path | None, typer.Option(help="The prototxt whose layers the weights are for.", show_default=False)] = None,
    phase: Phase = "TEST",
    shape: Shapes = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="old=new: a layer of the file under another name; may come several times.", show_default=False)
    ] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="Let the first layers take R G B where they took B G R, or the other way round.")] = False,
    fold_mean: Annotated[
        str | None, typer.Option(help="Put the mean into the first layers: 104,117,123 in the net's order, or a .binaryproto.", show_default=False)
    ] = None,
    fold_scale: Annotated[float, typer.Option(help="The factor behind the mean, likewise.")] = 1.0,
    image: Annotated[str, typer.Option("--input", help="The blob of the image, if the net has several inputs.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Weights and solver states in another format. With --net, copied by layer name as Caffe does, and what went where."""
    from converters.transfer import Options, transfer

    options = Options(net, phase.upper(), _shapes(shape), _named(rename, "--rename", "old=new"), rgb, _mean(fold_mean), fold_scale, image)
    done = transfer(source, target, options)
    if as_json:
        facts: dict[str, Any] = {"file": str(target), "layers": done.layers, "blobs": done.blobs, "values": done.values}
        print(json.dumps(facts | ({"weights": done.fit.to_dict()} if done.fit else {}), indent=1))
    else:
        if done.fit:
            _print_fit(done.fit)
        print(f"wrote {target}: {done.blobs} blobs" + (f" of {done.layers} layers" if done.layers else "") + f", {done.values:,} values")
    raise typer.Exit(0 if done else 1)


@app.command()
def dataset(
    listing: Annotated[Path, typer.Argument(help="A list of pictures: `path label` a line.", show_default=False)],
    database: Annotated[Path, typer.Argument(help="The folder of the new LMDB.", show_default=False)],
    root_folder: Annotated[str, typer.Option(help="A prefix of every path in the list, as in Caffe.")] = "",
    gray: Annotated[bool, typer.Option("--gray", help="One channel.")] = False,
    resize: Annotated[str | None, typer.Option(help="height,width to which pictures are brought.", show_default=False)] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="In random order.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random order.")] = 0,
    encoded: Annotated[str, typer.Option(help="Keep pictures compressed: png, jpg, or same as the file.")] = "",
    check_size: Annotated[bool, typer.Option("--check-size", help="Refuse a picture of another size than the first.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Pass over pictures that cannot be read, and name them.")] = False,
    backend: Annotated[str, typer.Option(help="lmdb; LevelDBs are read, not written.")] = "lmdb",
) -> None:
    """A list of pictures becomes a database of Datum. As Caffe's convert_imageset makes it; whole, or not at all."""
    from prototxt.data.tools import convert_imageset

    if backend.lower() != "lmdb":
        raise typer.BadParameter(f"{backend!r} is not written; write an LMDB, and `backend: LMDB` into the net", param_hint="--backend")
    with _progress("pictures") as step:
        done = convert_imageset(
            listing,
            database,
            root_folder=root_folder,
            gray=gray,
            size=_size(resize),
            shuffle=shuffle,
            seed=seed,
            encoded=encoded,
            check_size=check_size,
            skip=skip,
            progress=step,
        )
    for problem in done.skipped:
        print(f"passed over: {problem}")
    print(f"wrote {database}: {done.written} records")
    raise typer.Exit(1 if done.skipped else 0)


@app.command()
def mean(
    database: Annotated[Path, typer.Argument(help="An LMDB or LevelDB of Datum.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The mean file, a .binaryproto.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """The mean over the records of a database. As Caffe's compute_image_mean computes it; and one value a channel."""
    from prototxt.data.tools import compute_mean

    with _progress("records") as step:
        values = compute_mean(database, output, progress=step)
    channels = [float(v) for v in values.mean((1, 2), dtype="float64")]
    if as_json:
        print(json.dumps({"file": str(output), "shape": list(values.shape), "channels": channels}, indent=1))
    else:
        print(f"wrote {output}: {' x '.join(map(str, values.shape))} (channels x height x width)")
        print("mean_value: " + ", ".join(f"{v:.6g}" for v in channels))


@app.command()
def train(
    solver: Annotated[Path, typer.Argument(help="A solver.prototxt.", show_default=False)],
    weights: Weights = None,
    snapshot: Annotated[Path | None, typer.Option(help="A .solverstate to go on from.", show_default=False)] = None,
    device: Device = "cpu",
    amp: Annotated[str | None, typer.Option(help="bf16 or fp16: mixed precision.", show_default=False)] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the train net.")] = False,
    channels_last: Annotated[bool, typer.Option(help="Keep images with the channels innermost, which is faster.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read Data and ImageData layers; 0 is a thread.")] = 0,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits in every run on one device, at some cost.")] = False,
    log: Annotated[Path | None, typer.Option(help="The run's log; by default <snapshot prefix>.jsonl.", show_default=False)] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="A folder for TensorBoard.", show_default=False)] = None,
) -> None:
    """Train as `caffe train` did, with the same numbers. A signal snapshots and stops. Several processes: torchrun cli.py train ..."""
    import pycls
    from converters.summary import fit
    from pycls import distributed
    from pycls.checkpoint import prefix
    from pycls.machine import Machine, prepare
    from pycls.progress import Progress
    from pycls.runlog import RunLog
    from pycls.trainer import train as run

    if weights and snapshot:
        raise typer.BadParameter("a snapshot names its own weights; give one of the two", param_hint="--weights, --snapshot")
    world, device = distributed.join(_device(device))
    machine = prepare(Machine(device, amp, compile, channels_last, workers, deterministic))
    with _stage("building the nets", quiet=not world.main):
        made = pycls.Solver(solver, weights=weights, restore=snapshot, machine=machine, world=world)
    for file in [] if snapshot or not world.main else [weights] if weights else made.settings.weights:
        print(fit(made.net.graph, file).text())
    record = RunLog(log or Path(f"{prefix(made)}.jsonl"), tensorboard) if world.main else RunLog(None)
    try:
        done = run(made, Progress(quiet=not world.main), record)
    finally:
        record.close()
        distributed.leave()
    raise typer.Exit(0 if done else 1)


@app.command("test")
def score(
    net: Net,
    weights: Annotated[Path, typer.Option("--weights", "-w", help="A .caffemodel, .caffemodel.h5 or .safetensors.", show_default=False)],
    iterations: Annotated[int, typer.Option(min=1, help="How many batches.")] = 50,
    stage: Stages = None,
    level: Level = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Outputs of a net over batches of its own data. With their means, as `caffe test` prints them."""
    from pycls.progress import Progress
    from pycls.scoring import score as run

    found = run(net, weights, iterations, stages=stage or (), level=level, device=_device(device), progress=Progress(quiet=as_json))
    print(json.dumps({"iterations": found.iterations, "loss": found.loss, "outputs": found.outputs}, indent=1) if as_json else found.text())


@app.command("time")
def time_(
    net: Net,
    weights: Weights = None,
    iterations: Annotated[int, typer.Option(min=1, help="How many passes.")] = 50,
    phase: Phase = "TRAIN",
    stage: Stages = None,
    level: Level = 0,
    shape: Shapes = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """How long each layer takes, forward and backward. Beside the whole net, as `caffe time` prints it."""
    import converters
    from pycls.progress import Progress
    from pycls.timing import time_net

    loaded = converters.load(net, weights, phase.upper(), stage or (), level, _shapes(shape))
    timing = time_net(loaded, iterations, device=_device(device), progress=Progress(quiet=as_json))
    print(json.dumps(timing.to_dict(), indent=1) if as_json else timing.text())


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Logs of runs (.jsonl), or folders with one.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .svg, .png or .pdf; by default beside the first log.", show_default=False)
    ] = None,
) -> None:
    """Loss, tests and learning rate of runs as a picture."""
    from pycls.plots import plot as run

    print(f"wrote {run(runs, output)}")


# Comparison -----------------------------------------------------------------------------------------------------------


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="What is looked at: [RUNNER:]FILE[+WEIGHTS][@DEVICE,FORMAT]; a folder with --all.", show_default=False)],
    b: Annotated[str | None, typer.Argument(help="The reference, likewise; a runner's name alone: the same net by it.", show_default=False)] = None,
    weights: Weights = None,
    input: Annotated[Path | None, typer.Option("--input", "-i", help="An .npz, .npy or image to feed; else seeded.", show_default=False)] = None,
    net: Annotated[Path | None, typer.Option(help="The prototxt that explains two sides of which neither is one.", show_default=False)] = None,
    blobs: Annotated[str | None, typer.Option(help="Compare these blobs only: conv1,prob.", show_default=False)] = None,
    map: Annotated[list[str] | None, typer.Option(help="blob=A's own name of it, or the submodule that makes it.", show_default=False)] = None,
    atol: Annotated[float | None, typer.Option(help="Allowed max|a - b|; goes with --rtol.", show_default=False)] = None,
    rtol: Annotated[float | None, typer.Option(help="Allowed max|a - b| / max|b|; goes with --atol.", show_default=False)] = None,
    gradients: Annotated[bool, typer.Option("--gradients", help="Parameter gradients too, after one backward pass.")] = False,
    steps: Annotated[int, typer.Option(min=0, help="A and B are solvers or recorded traces: compare N steps.", show_default=False)] = 0,
    report: Annotated[Path | None, typer.Option(help="A folder for report.json, .txt and .html.", show_default=False)] = None,
    save: Annotated[Path | None, typer.Option(help="Save A's run as .npz and .json, to compare with on another day.", show_default=False)] = None,
    all: Annotated[bool, typer.Option("--all", help="A is a folder of models: compare each, one row a model.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side with --all.")] = 1,
    every: Annotated[bool, typer.Option("--every", help="Print every blob, not only those that differ and the outputs.")] = False,
    caffe_python: Annotated[str, typer.Option(help="The Python that has the module caffe.")] = "",
    mean: Annotated[str | None, typer.Option(help="Channel means of an image, 104,117,123, or a mean .binaryproto.", show_default=False)] = None,
    scale: Annotated[float, typer.Option(help="Factor behind the mean.")] = 1.0,
    phase: Phase = "TEST",
    stage: Stages = None,
    level: Level = 0,
    shape: Shapes = None,
    seed: Annotated[int, typer.Option(help="For inputs, and for fillers where weights are missing.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Two frameworks on one net, blob by blob. Where they part first, and the suspected cause; docs/compare.md has examples."""
    from converters.comparison.command import Comparison, run

    chosen = tuple(filter(None, (name.strip() for name in (blobs or "").split(","))))
    asked = Comparison(
        a, b, weights=weights, input=input, net=net, blobs=chosen, names=_named(map, "--map"),
        tolerance=_tolerance(atol, rtol), gradients=gradients, report=report, save=save, caffe_python=caffe_python, mean=_mean(mean), scale=scale,
        phase=phase.upper(), stages=tuple(stage or ()), level=level, shapes=_shapes(shape), seed=seed,
    )  # fmt: skip
    if all:
        from converters.comparison import many

        if steps:
            raise typer.BadParameter("solvers are compared one pair at a time", param_hint="--all, --steps")
        raise typer.Exit(_rows(many.compare_all(Path(a), (b,) if b else (), asked, jobs, _row(as_json)), as_json))
    if steps:
        from converters.comparison.reports import write_report
        from pycls.comparison import compare_training

        found = compare_training(a, b, steps, weights=weights, caffe_python=caffe_python)
        if report:
            write_report(found, report)
    else:
        with _stage("comparing"):
            found = run(asked)
    if found is None:
        from converters.comparison.runners.saved import run_path

        print(f"wrote {run_path(save or '')}")
        raise typer.Exit(0)
    print(json.dumps(found.to_dict(), indent=1) if as_json else found.text(every=every), end="\n" if as_json else "")
    raise typer.Exit(0 if found else 1)


def _row(as_json: bool) -> Callable[[Any], None]:
    return lambda row: None if as_json else print(row.line(), flush=True)


def _rows(rows: list[Any], as_json: bool) -> int:
    from converters.comparison.many import verdict

    print(json.dumps([row.to_dict() for row in rows], indent=1) if as_json else verdict(rows))
    return 0 if all(rows) else 1


def _reader(name: str) -> str:
    if name not in ("", "opencv"):
        raise typer.BadParameter(f"{name!r}: only opencv needs more than the ONNX file", param_hint="--for")
    return name


def _tolerance(atol: float | None, rtol: float | None) -> Any:
    if atol is None and rtol is None:
        return None
    if atol is None or rtol is None:
        raise typer.BadParameter("give both, so that neither is a surprise", param_hint="--atol, --rtol")
    if not (atol >= 0 and rtol >= 0):
        raise typer.BadParameter(f"{atol:g} and {rtol:g}: neither may be below 0", param_hint="--atol, --rtol")
    from converters.comparison.results import Tolerance

    return Tolerance(atol, rtol)


def _named(written: list[str] | None, option: str, form: str = "blob=submodule") -> dict[str, str]:
    pairs = {}
    for item in written or []:
        left, _, right = item.partition("=")
        if not left or not right:
            raise typer.BadParameter(f"{item!r} is not {form}", param_hint=option)
        pairs[left] = right
    return pairs


app.add_typer(classify, name="classify")


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


def _size(written: str | None) -> tuple[int, int] | None:
    if written is None:
        return None
    sides = [s.strip() for s in written.replace("x", ",").split(",")]
    if len(sides) != 2 or not all(s.isascii() and s.isdecimal() and int(s) > 0 for s in sides):
        raise typer.BadParameter(f"{written!r} is not height,width", param_hint="--resize")
    return int(sides[0]), int(sides[1])


def _finite(number: float) -> float | str:
    """The number as JSON has it: one that is not finite as a word."""
    from converters.comparison.results import plain

    return plain(number)  # type: ignore[no-any-return]


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


def _print_fit(fit: Any) -> None:
    """The table of a copy by name, a summary, and what does not fit."""
    print(f"\n{fit.text()}")
    print(f"weights: {len(fit.loaded)} layers fit by name, {len(fit.kept)} are missing, {len(fit.unused)} more are in the file")
    for problem in fit.wrong:
        print(f"  does not fit: {problem}")


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """How many are done of how many: a bar on a terminal, a line every ten seconds elsewhere; both on stderr."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        last = [time.monotonic()]

        def step(done: int, total: int) -> None:
            if time.monotonic() - last[0] > 10:
                last[0] = time.monotonic()
                print(f"{done:,} of {total:,} {what}", file=sys.stderr, flush=True)

        yield step


@contextmanager
def _stage(text: str, *, quiet: bool = False) -> Iterator[None]:
    """A long part: a spinner on a terminal, a line with its seconds elsewhere; both on stderr."""
    start = time.perf_counter()
    if quiet:
        yield
        return
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(f"{text} ..."):
            yield
    else:
        yield
    print(f"{text}: {time.perf_counter() - start:.1f} s", file=sys.stderr)


def _confinable(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the option --root."""

    @wraps(command)
    def run(*args: Any, root: Path | None = None, **options: Any) -> None:
        if root is not None:
            from prototxt.files import confine

            confine(root)
        command(*args, **options)

    plain = signature(command, eval_str=True)
    last = Parameter("root", Parameter.KEYWORD_ONLY, default=None, annotation=Root)
    run.__signature__ = plain.replace(parameters=[*plain.parameters.values(), last])  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | {"root": Root}
    return run


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ended by Ctrl-C with a word; typer would end it in silence."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


def _commands(of: typer.Typer) -> list[Any]:
    """All commands, those of groups too."""
    inner = [command for group in of.registered_groups if group.typer_instance for command in _commands(group.typer_instance)]
    return [*of.registered_commands, *inner]


def main() -> None:
    """Run the command line; every error that a user can cause ends in one message and status 2."""
    for command in _commands(app):
        command.callback = _stoppable(_confinable(command.callback))
    try:
        app()
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
