"""`decant classify`: one thin function a command. Options, one call into the library, print, exit status.

0 done, 1 done but it falls short (inspect found something; a signal ended the training), 2 the input is at fault.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .project_commands import experiment, masks, project

if TYPE_CHECKING:
    from .classify.decisions import Decisions
    from .classify.evaluation import Predictions
    from .classify.trained import Trained

app = typer.Typer(
    name="classify",
    help="Heads on a net of Caffe's, or of torchvision. Multi-class, multi-label, multi-task, with labels that are missing.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigFile = Annotated[Path, typer.Argument(help="A config in YAML.", show_default=False)]
Changes = Annotated[list[str] | None, typer.Argument(help="key=value in place of the config's, as train.epochs=3.", show_default=False)]
Run = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Split = Annotated[str, typer.Option(help="train, val or test.")]
Folder = Annotated[Path | None, typer.Option("--folder", help="Where the list's images are; by default beside it.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")]


@app.command()
def train(
    config: ConfigFile,
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint, exactly.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="One step of everything; shapes, losses, memory; nothing is written.")] = False,
    device: Device = "cpu",
) -> None:
    """Train and write the bundle and the report. Thresholds and temperatures too; torchrun starts it on several devices."""
    from .classify.config import read_config

    settings = read_config(config, changes or ())  # before torch, so that a typing mistake is told at once

    import torch

    from .classify.run import dry, finish, fit, run_folder, start
    from .distributed import join, leave
    from .progress import Progress

    world, place = join(_device(device))
    progress = Progress(quiet=not world.main)
    try:
        if dry_run:
            typer.echo("\n".join(dry(settings, torch.device(place))))
            return
        done = fit(start(settings, torch.device(place), world, resume=resume), progress)
        if done and world.main:
            made = finish(run_folder(settings), torch.device(place))
            for split, figures in made.figures.items():
                typer.echo(f"\nepoch {made.epoch} on {split}, with the thresholds and temperatures of val:\n{_table(figures)}")
            typer.echo("\n".join(f"wrote {path}" for path in made.files))
            typer.echo(f"ONNX Runtime differs from torch by at most {made.onnx_error:.1e}")
    finally:
        leave()
    raise typer.Exit(0 if done else 1)


@app.command("eval")
def evaluate(run: Run, changes: Changes = None, split: Split = "test", device: Device = "cpu", as_json: AsJson = False) -> None:
    """The figures of a run's best epoch on a list."""
    from .classify.decisions import figures

    trained = _trained(run, changes, device)
    made = figures(_predicted(trained, split), _decisions(run), trained.facts["counts"])
    typer.echo(json.dumps(made, indent=1) if as_json else _table(made))


@app.command()
def thresholds(run: Run, changes: Changes = None, device: Device = "cpu", as_json: AsJson = False) -> None:
    """Fit thresholds on the validation list. Those of binary and multi-label tasks; they go into the bundle."""
    _refit(run, changes, device, as_json, calibrate=False)


@app.command()
def calibrate(run: Run, changes: Changes = None, device: Device = "cpu", as_json: AsJson = False) -> None:
    """Fit temperatures on the validation list. Then the thresholds; they go into the bundle."""
    _refit(run, changes, device, as_json, calibrate=True)


@app.command()
def report(
    run: Run,
    changes: Changes = None,
    split: Split = "test",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page; by default report.html of the run.", show_default=False)] = None,
    device: Device = "cpu",
) -> None:
    """A page and a JSON of what the net does on a list. Figures, confusions, the worst samples, curves, calibration."""
    from .classify.report import write_report

    trained = _trained(run, changes, device)
    for path in write_report(trained, _predicted(trained, split), _decisions(run), split, output or run / "report.html"):
        typer.echo(f"wrote {path}")


@app.command()
def export(
    run: Run,
    changes: Changes = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The bundle; by default that of the run.", show_default=False)] = None,
) -> None:
    """Write the bundle of a run's best epoch. Safetensors, ONNX, tasks, thresholds, preprocessing."""
    from .classify.bundle import write_bundle

    folder = output or run / "bundle"
    errors = write_bundle(_trained(run, changes, "cpu"), _decisions(run), folder)
    typer.echo(f"wrote {folder}; ONNX Runtime differs from torch by at most {max(errors.values()):.1e}")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)],
    images: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of them.", show_default=False)] = None,
    listed: Annotated[Path | None, typer.Option("--list", help="A label list whose images are meant.", show_default=False)] = None,
    format: Annotated[str, typer.Option(help="The list's format.")] = "native",
    folder: Folder = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answers as a label file.", show_default=False)] = None,
    abstain: Annotated[float | None, typer.Option(min=0, max=1, help="Answer NA below this probability.", show_default=False)] = None,
    views: Annotated[
        str | None, typer.Option(help="Views to join: flip, vertical_flip, rotate, by commas; or none. By default the run's.", show_default=False)
    ] = None,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out images that do not decode, and count them.")] = False,
    cuda: Annotated[bool, typer.Option("--cuda", help="Run on the GPU.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a bundle says of images. By ONNX Runtime; it needs nothing but its folder."""
    from .classify.bundle import read_bundle, with_abstain, with_views
    from .labels import write_label_file

    made = read_bundle(bundle, cuda=cuda)
    made = made if abstain is None else with_abstain(made, abstain)
    made = made if views is None else with_views(made, views)
    answers = made.predict(_images(images or [], listed, format, folder), on_error="skip" if skip else "stop")
    if output:
        write_label_file(answers.table(), output)
    if as_json:
        typer.echo(json.dumps({"images": answers.rows(), "broken": list(answers.broken)}, indent=1))
    elif not output:
        typer.echo("\n".join(f"{row.pop('path')}: {_answers(row)}" for row in answers.rows()))
    for problem in answers.broken:
        typer.echo(f"left out: {problem}", err=True)
    if output and not as_json:
        typer.echo(f"wrote {output}: {len(answers.paths)} images" + (f", {len(answers.broken)} left out" if answers.broken else ""))


@app.command()
def inspect(
    what: Annotated[Path, typer.Argument(help="A config, or one label list.", show_default=False)],
    changes: Changes = None,
    format: Annotated[str, typer.Option(help="The format of a list.")] = "native",
    folder: Folder = None,
    missing: Annotated[list[str] | None, typer.Option(help="A word for a missing label, as -1.", show_default=False)] = None,
    negative: Annotated[list[str] | None, typer.Option(help="A word for a negative label, as -1.", show_default=False)] = None,
    images: Annotated[bool, typer.Option(help="Open every image, too.")] = True,
    near: Annotated[int, typer.Option(help="Differing bits of 256 up to which two images look alike.")] = 6,
    as_json: AsJson = False,
) -> None:
    """What is in label files, and what is wrong. Status 1 if something is.

    Counts, NA, imbalance, labels that come together, copies, leaks between splits, broken images.
    """
    from .classify.inspection import inspect as look
    from .classify.inspection import text

    tables = _tables(what, changes, format, folder, missing, negative)
    with _bar(sum(map(len, tables.values())) if images else 0) as tick:
        made = look(tables, images=images, near=near, tick=tick)
    typer.echo(json.dumps(made.to_dict(), indent=1) if as_json else text(made), nl=as_json)
    raise typer.Exit(0 if made else 1)


app.command()(masks)
app.add_typer(project, name="project")
app.add_typer(experiment, name="experiment")


# What the commands share ----------------------------------------------------------------------------------------------


def _refit(run: Path, changes: list[str] | None, device: str, as_json: bool, *, calibrate: bool) -> None:
    from .classify.bundle import rewrite_decisions
    from .classify.decisions import decide, figures

    trained = _trained(run, changes, device)
    validation, kept = _predicted(trained, "val"), _decisions(run)
    after = decide(trained.config, validation, calibrate=calibrate, keep=kept)
    rewrite_decisions(run / "bundle", after)
    before = {name: replace(one, thresholds=(), temperature=1.0 if calibrate else one.temperature) for name, one in after.items()}
    both = [figures(validation, decisions)["tasks"] for decisions in (before, after)]
    if as_json:
        typer.echo(json.dumps({name: decision.to_dict() for name, decision in after.items()}, indent=1))
        return
    shown = ("ECE", "NLL") if calibrate else ("f1", "macro_f1_all", "mA")
    for task in trained.tasks:
        decision, pairs = after[task.name], [[f[task.name]["metrics"].get(key) for f in both] for key in shown]
        names = task.names[1:] if task.kind == "binary" else task.names
        listed = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, decision.thresholds, strict=False))
        typer.echo(f"{task.name}: temperature {decision.temperature:.3f}" + (f"; thresholds {listed}" if listed else ""))
        changed = [f"{key} {_number(a)} -> {_number(b)}" for key, (a, b) in zip(shown, pairs, strict=True) if a is not None]
        typer.echo("".join(f"    {line}\n" for line in (*changed, *decision.notes)), nl=False)
    typer.echo(f"wrote {run / 'bundle'}; figures of the validation list, which they were fitted on")


def _trained(run: Path, changes: list[str] | None, device: str) -> Trained:
    import torch

    from .classify.trained import trained

    return trained(run, changes or (), torch.device(_device(device)))


def _predicted(trained: Trained, split: str) -> Predictions:
    predictions = trained.predictions(split)
    if predictions.broken:
        typer.echo(
            f"{len(predictions.broken)} images of {split} are left out, since they do not decode; the first: {predictions.broken[0]}", err=True
        )
    return predictions


def _decisions(run: Path) -> Decisions:
    """Those of the run's bundle, or plain ones where there is none yet."""
    from .classify.bundle import FACTS, bundled_decisions
    from .classify.decisions import undecided
    from .classify.trained import trained

    if (run / "bundle" / FACTS).exists():
        return bundled_decisions(run / "bundle")
    made = trained(run)
    return undecided(made.config, made.tasks)


def _tables(what: Path, changes: list[str] | None, format: str, folder: Path | None, missing: list[str] | None, negative: list[str] | None) -> Any:
    """The tables of a config's splits, or of one list."""
    from .classify.config import ListConfig, read_config
    from .classify.tables import list_table, split_tables

    if what.suffix.lower() in (".yaml", ".yml"):
        return split_tables(read_config(what, changes or ()))
    options: dict[str, Any] = {name: words for name, words in (("missing", missing), ("negative", negative)) if words}
    return {what.name: list_table(ListConfig(labels=str(what), root=str(folder or ""), format=format, options=options))}


def _images(images: list[Path], listed: Path | None, format: str, folder: Path | None) -> list[str]:
    """The files that are meant: given, in folders, or those of a list."""
    from prototxt import ConfigError

    from .classify.config import ListConfig
    from .classify.tables import list_table
    from .readers.folders import PICTURES

    found = [str(f) for path in images for f in (sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES) if path.is_dir() else [path])]
    if listed is not None:
        found += list_table(ListConfig(labels=str(listed), root=str(folder or ""), format=format)).paths
    if not found:
        raise ConfigError("no image: name files or folders that hold some, or a list with --list")
    return found


def _device(name: str) -> str:
    import torch

    from prototxt import ConfigError

    kinds = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*kinds, *(["cuda"] if len(kinds) > 1 else [])):
        raise ConfigError(f"--device {name}: this machine has {', '.join(kinds)}")
    return name


def _table(made: dict[str, Any]) -> str:
    """The figures of each task, one a line."""
    from .classify.decisions import MAIN

    lines = []
    for name, facts in made["tasks"].items():
        metrics = facts["metrics"]
        main = MAIN[facts["kind"]]
        keys = [main, *(k for k in ("accuracy", "balanced_accuracy", "mA", "f1", "macro_f1_all", "instance_exact", "CS@5", "ECE") if k in metrics)]
        lines.append(f"  {name:<16} {facts['labels']:>6} labels  " + "  ".join(f"{key} {_number(metrics.get(key))}" for key in keys))
    return "\n".join([*lines, f"  score {_number(made['score'])} (the mean of each task's first figure; of an age 1 - MAE / span)"])


def _answers(row: dict[str, Any]) -> str:
    parts = []
    for task, said in row.items():
        answer = said["answer"]
        if isinstance(answer, list):
            parts.append(f"{task} {', '.join(answer) or 'none'}" + (f" (NA: {', '.join(said['abstains'])})" if "abstains" in said else ""))
        else:
            parts.append(f"{task} {'NA' if answer is None else answer}" + (f" ({said['confidence']:.2f})" if "confidence" in said else ""))
    return "; ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar on a terminal, for work of so many images."""
    if not total or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("images", total=total)
        yield lambda n: progress.advance(task, n)
