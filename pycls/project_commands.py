"""`decant classify project`, `experiment` and `masks`: one thin function a command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

project = typer.Typer(
    name="project",
    help="Three data sets from lists to hand-in. iWildCam 2019, Human Protein Atlas, face attributes; small data to try it with.",
    no_args_is_help=True,
)
experiment = typer.Typer(name="experiment", help="What a technique does, on real data from a package.", no_args_is_help=True)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the lists.", show_default=False)]
Images = Annotated[Path, typer.Option(help="Folder of the images.", show_default=False)]
Bundle = Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of what is dealt by chance.")]


@project.command()
def generate(
    name: Annotated[str, typer.Argument(help="iwildcam, hpa or faces.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where to.", show_default=False)],
    seed: Seed = 0,
) -> None:
    """Draw a small data set in a project's layout, to try the whole way without the data."""
    from importlib import import_module

    known = ("iwildcam", "hpa", "faces")
    if name not in known:
        raise typer.BadParameter(f"there are {', '.join(known)}, and not {name!r}")
    typer.echo(f"wrote {import_module(f'pycls.projects.{name}').generate(folder, seed=seed)}, and its images beside it")


@project.command()
def iwildcam(
    annotations: Annotated[Path, typer.Argument(help="A COCO Camera Traps JSON.", show_default=False)],
    images: Images,
    output: Output,
    validation: Annotated[float, typer.Option(help="Share of the images whose cameras are held out.")] = 0.2,
    seed: Seed = 0,
) -> None:
    """Lists of disjoint cameras; infrared pictures are marked."""
    from .projects.iwildcam import prepare

    _tell(prepare(annotations, images, output, seed=seed, validation=validation, watch=_watched))


@project.command()
def hpa(
    labels: Annotated[Path, typer.Argument(help="train.csv: Id,Target.", show_default=False)],
    output: Output,
    folds: Annotated[int, typer.Option(help="How many folds.")] = 5,
    fold: Annotated[int, typer.Option(help="The one to validate on, from 0.")] = 0,
    seed: Seed = 0,
) -> None:
    """Folds that keep the share of every label."""
    from .projects.hpa import prepare

    _tell(prepare(labels, output, folds=folds, fold=fold, seed=seed))


@project.command()
def faces(
    attributes: Annotated[Path, typer.Argument(help="list_attr_celeba.txt.", show_default=False)],
    images: Images,
    output: Output,
    partition: Annotated[str, typer.Option(help="list_eval_partition.txt.", show_default=False)] = "",
    identities: Annotated[str, typer.Option(help="identity_CelebA.txt.", show_default=False)] = "",
    seed: Seed = 0,
) -> None:
    """Lists in which no person is twice: by the official partition, or by identity."""
    from .projects.faces import prepare

    _tell(prepare(attributes, images, output, partition=partition, identities=identities, seed=seed))


@project.command("submit-iwildcam")
def submit_iwildcam(
    bundle: Bundle,
    annotations: Annotated[Path, typer.Argument(help="The JSON of the test images.", show_default=False)],
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV.")] = Path("submission.csv"),
    vote: Annotated[bool, typer.Option(help="The frames of a sequence share one answer.")] = True,
) -> None:
    """Write `id,animal_class` of every test image."""
    from .classify.bundle import read_bundle
    from .projects.iwildcam import submission

    typer.echo(f"wrote {output}: {submission(read_bundle(bundle), annotations, images, output, vote=vote)} rows")


@project.command("submit-hpa")
def submit_hpa(
    bundle: Bundle,
    listed: Annotated[Path, typer.Argument(help="sample_submission.csv: the Ids that are asked for.", show_default=False)],
    images: Images,
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV.")] = Path("submission.csv"),
) -> None:
    """Write `Id,Predicted` of every Id; some label is always on."""
    from .classify.bundle import read_bundle
    from .projects.hpa import submission

    typer.echo(f"wrote {output}: {submission(read_bundle(bundle), listed, images, output)} rows")


@experiment.command("center-loss")
def center_loss(
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path("center-loss.png"),
    seeds: Annotated[int, typer.Option(help="How many runs a lambda.", min=1)] = 5,
    epochs: Annotated[int, typer.Option(help="Of each run.", min=1)] = 35,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """What lambda does to features of two units, on real digits: four panels and a table; status 1 where it is not monotone."""
    from .experiments.center_loss import draw, run

    outcome = run(seeds=seeds, epochs=epochs, tell=lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    draw([panel for panel in outcome.panels if panel.seed == 0], output)
    typer.echo(json.dumps(outcome.facts(), indent=1) if as_json else f"{outcome.text()}\nwrote {output}")
    raise typer.Exit(0 if outcome else 1)


@experiment.command()
def augmentation(
    image: Annotated[Path | None, typer.Argument(help="An image; by default scikit-learn's flower.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path("augmentation.png"),
    seed: Seed = 0,
) -> None:
    """Draw each change of a config's `augment` on one image."""
    from .experiments.augmentation import grid

    grid(image, output, seed=seed)
    typer.echo(f"wrote {output}")


def masks(
    net: Annotated[Path, typer.Argument(help="A .prototxt with masks, as attention56's.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Images.", show_default=False)],
    weights: Annotated[Path | None, typer.Option("--weights", "-w", help="A .caffemodel or .safetensors.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path("masks.png"),
    blob: Annotated[list[str] | None, typer.Option(help="A blob to show; by default each map that a Sigmoid makes.", show_default=False)] = None,
    mean: Annotated[str, typer.Option(help="Channel means in BGR, 104,117,123.")] = "0",
    scale: Annotated[float, typer.Option(help="Factor behind the mean.")] = 1.0,
) -> None:
    """Draw a net's attention masks as heat maps over images."""
    from .heatmaps import draw_net

    names = draw_net(net, weights, images, output, blobs=blob or (), mean=_numbers(mean), scale=scale)
    typer.echo(f"wrote {output}: {', '.join(names)}")


def _numbers(written: str) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in written.split(","))
    except ValueError:
        raise typer.BadParameter(f"{written!r} is not 104,117,123", param_hint="--mean") from None


def _watched(paths: Sequence[str]) -> Iterable[str]:
    """The paths, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    return track(paths, "looking at images", console=Console(stderr=True), disable=not sys.stderr.isatty())


def _tell(written: dict[str, Path]) -> None:
    for split, path in written.items():
        typer.echo(f"wrote {path}: {split}")
