"""What ships: a folder that predicts by itself, through ONNX Runtime.

bundle/model.onnx           a prepared image batch in, logits of each task out, by its name
       model.safetensors    the same weights, under the names of the PyTorch model
       bundle.json          tasks, temperatures, thresholds, preprocessing, views, figures, versions
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototxt import FileProblem, LabelError, TrainingError
from prototxt.files import atomic_path, check_file, read_file, write_file

from ..labels import Column, LabelTable
from ..tasks import Task
from .config import ImageConfig, TtaConfig, section
from .decisions import Decision, Decisions, answers
from .evaluation import viewed
from .images import Array, channel_constants, load_image
from .trained import Trained

FORMAT = "decant bundle 1"
ONNX, WEIGHTS, FACTS = "model.onnx", "model.safetensors", "bundle.json"
TOLERANCE = 1e-4  # of a bundle's ONNX against its own model, relative to the largest logit


def write_bundle(trained: Trained, decisions: Decisions, folder: Path, figures: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Write a bundle, all or nothing; {task: largest difference of ONNX Runtime and torch}. TrainingError if they differ."""
    from safetensors.torch import save_file

    from ..heads import export_onnx, onnx_error

    made = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        made.mkdir(parents=True, exist_ok=True)
        model = trained.model.cpu().eval()
        with atomic_path(made / WEIGHTS) as temporary:
            save_file({name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}, temporary)
        export_onnx(model, made / ONNX, activation=False)
        errors = onnx_error(model, made / ONNX, activation=False)
        bad = {name: error for name, error in errors.items() if not error <= TOLERANCE}
        if bad:
            raise TrainingError(
                f"{folder}: the ONNX file differs from the model: {', '.join(f'{name} by {error:.1e}' for name, error in bad.items())}"
            )
        write_file(made / FACTS, json.dumps(_facts(trained, decisions, errors, figures or {}), indent=1) + "\n")
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(made, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as exc:
        raise FileProblem(f"{folder}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(made, ignore_errors=True)
        trained.model.to(trained.device)
    return errors


def _facts(trained: Trained, decisions: Decisions, errors: Mapping[str, float], figures: Mapping[str, Any]) -> dict[str, Any]:
    import onnxruntime

    return {
        "format": FORMAT,
        "name": trained.config.name,
        "epoch": trained.facts["epoch"],
        "tasks": [task.to_dict() for task in trained.tasks],
        "decisions": {name: decision.to_dict() for name, decision in decisions.items()},
        "image": asdict(trained.config.data.image),
        "tta": asdict(trained.config.tta),
        "planes": trained.facts["planes"],
        "input": trained.model.input,
        "figures": figures,
        "onnx_error": errors,
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    }


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read: `predict` takes image files and gives a label table."""

    folder: Path
    tasks: tuple[Task, ...]
    decisions: Decisions
    image: ImageConfig
    tta: TtaConfig
    planes: tuple[str, ...]
    facts: Mapping[str, Any]
    session: Any

    def logits(self, images: Array) -> dict[str, Array]:
        """Bytes [N, C, H, W] -> logits by task, of the views of the bundle joined."""
        factor, shift = channel_constants(self.image, images.shape[1])
        prepared = images.astype(np.float32) * factor[:, None, None] + shift[:, None, None]
        return {name: values.numpy() for name, values in viewed(self._run, torch.from_numpy(prepared), self.tta, self.tasks).items()}

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        names = [task.name for task in self.tasks]
        made = self.session.run(names, {self.facts["input"]: images.contiguous().numpy()})
        return dict(zip(names, map(torch.from_numpy, made), strict=True))

    def predict(self, files: Sequence[str], *, batch: int = 64, on_error: str = "stop") -> Answers:
        """The answers for images; with planes a file is the stem of one. LabelError for an image that does not decode, unless `skip`."""
        logits: dict[str, list[Array]] = {task.name: [] for task in self.tasks}
        broken, paths = list[str](), list[str]()
        for names, images in self._loaded(files, batch, broken, on_error):
            paths += names
            for name, values in self.logits(images).items():
                logits[name].append(values)
        joined = {t.name: np.concatenate(logits[t.name]) if paths else np.zeros((0, t.outputs), dtype=np.float32) for t in self.tasks}
        return Answers(self.tasks, self.decisions, tuple(paths), joined, tuple(broken), self.planes)

    def _loaded(self, files: Iterable[str], batch: int, broken: list[str], on_error: str) -> Iterator[tuple[list[str], Array]]:
        names, images = list[str](), list[Array]()
        for file in files:
            try:
                images.append(load_image([file + plane for plane in self.planes] or [file], self.image))
                names.append(file)
            except (LabelError, FileProblem) as exc:
                if on_error != "skip":
                    raise
                broken.append(str(exc))
            if len(images) == batch:
                yield names, np.stack(images)
                names, images = [], []
        if images:
            yield names, np.stack(images)


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits of images, and how they are read."""

    tasks: tuple[Task, ...]
    decisions: Decisions
    paths: tuple[str, ...]
    logits: Mapping[str, Array]
    broken: tuple[str, ...]
    planes: tuple[str, ...]

    def table(self) -> LabelTable:
        """The answers as a label table, which `write_label_file` writes: NA where the net abstains."""
        read = {task.name: self._read(task) for task in self.tasks}
        return LabelTable(
            file="predictions",
            paths=self.paths,
            columns=tuple(column_of(task) for task in self.tasks),
            values={name: values for name, (values, _, _) in read.items()},
            present={name: present for name, (_, present, _) in read.items()},
            planes=self.planes,
            places=self.paths,
        )

    def rows(self) -> list[dict[str, Any]]:
        """An object an image: its path, and each task's answer with how sure it is."""
        rows: list[dict[str, Any]] = [{"path": path} for path in self.paths]
        for task in self.tasks:
            values, present, sure = self._read(task)
            for row, value, there, confidence in zip(rows, values, present, sure, strict=True):
                row[task.name] = _said(task, value, there, confidence)
        return rows

    def _read(self, task: Task) -> tuple[Array, Array, Array]:
        return answers(task, self.decisions[task.name], torch.from_numpy(self.logits[task.name]).double())


def _said(task: Task, value: Any, there: Any, confidence: Any) -> dict[str, Any]:
    if task.kind == "multilabel":
        on = [name for name, v, p in zip(task.classes, value, there, strict=True) if p and v]
        unsure = [name for name, p in zip(task.classes, there, strict=True) if not p]
        sure = {name: round(float(c), 6) for name, c in zip(task.classes, confidence, strict=True)}
        return {"answer": on, "confidence": sure, **({"abstains": unsure} if unsure else {})}
    if not there:
        return {"answer": None, "confidence": round(float(confidence), 6)}
    if task.kind == "age":
        return {"answer": round(float(value), 2)}
    return {"answer": task.names[int(value)], "confidence": round(float(confidence), 6)}


def column_of(task: Task) -> Column:
    """The column of a label file that a task's answers fill."""
    if task.kind != "age":
        return Column(task.name, task.kind, task.classes)
    years = [str(year) for year in range(task.low, task.high + 1)]
    return Column(task.name, "age", (*years[:-1], f"{years[-1]}+"))


def read_bundle(folder: str | Path, *, cuda: bool = False) -> Bundle:
    """A bundle's folder, on the CPU or the GPU. TrainingError if it is none."""
    import onnxruntime

    folder = Path(folder)
    facts = read_facts(folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        options.intra_op_num_threads = int(threads)
    try:
        tasks = tuple(Task.from_dict(values) for values in facts["tasks"])
        decisions = {name: Decision.from_dict(values) for name, values in facts["decisions"].items()}
        image = section(ImageConfig, facts["image"], str(folder / FACTS))
        tta = section(TtaConfig, facts.get("tta", {}), str(folder / FACTS))
        providers = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(os.fspath(check_file(folder / ONNX)), options, providers=providers)
    except (KeyError, TypeError, AttributeError) as exc:
        raise TrainingError(f"{folder / FACTS}: lacks something that a bundle has: {exc}") from exc
    except (RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.Fail) as exc:
        raise TrainingError(f"{folder / ONNX}: ONNX Runtime cannot load it: {str(exc).splitlines()[0]}") from exc
    if cuda and "CUDAExecutionProvider" not in session.get_providers():
        raise TrainingError("--cuda: ONNX Runtime finds no GPU that it can use here; leave it out, and it runs on the CPU")
    return Bundle(folder, tasks, decisions, image, tta, tuple(facts["planes"]), facts, session)


def read_facts(folder: Path) -> dict[str, Any]:
    """bundle.json. TrainingError if the folder is no bundle."""
    try:
        facts = json.loads(read_file(folder / FACTS, limit=256 << 20))
    except ValueError as exc:
        raise TrainingError(f"{folder / FACTS}: no JSON: {exc}") from exc
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise TrainingError(f"{folder / FACTS}: is not of the format {FORMAT!r}")
    return facts


def rewrite_decisions(folder: Path, decisions: Decisions) -> None:
    """Put new temperatures and thresholds into a bundle, all or nothing."""
    facts = read_facts(folder) | {"decisions": {name: decision.to_dict() for name, decision in decisions.items()}}
    write_file(folder / FACTS, json.dumps(facts, indent=1) + "\n")


def bundled_decisions(folder: Path) -> Decisions:
    """The decisions that a bundle has now."""
    return {name: Decision.from_dict(values) for name, values in read_facts(folder)["decisions"].items()}


def with_abstain(bundle: Bundle, abstain: float) -> Bundle:
    """The bundle with another point to abstain at, for all tasks."""
    return replace(bundle, decisions={name: replace(decision, abstain=abstain) for name, decision in bundle.decisions.items()})


def with_views(bundle: Bundle, views: str) -> Bundle:
    """The bundle with other views to join, by commas (`flip,rotate`), or with `none`. ConfigError for one that there is not."""
    chosen = [] if views == "none" else [word.strip() for word in views.split(",")]
    return replace(bundle, tta=section(TtaConfig, {"views": chosen, "join": bundle.tta.join}, "--views"))
