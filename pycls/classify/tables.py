"""The lists of a config as tables, and the tasks that they and the config agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt import ConfigError, LabelError

from ..labels import Column, LabelTable, class_counts, joined, rooted, suggest
from ..readers import read_labels
from ..tasks import LOSSES, Task
from .config import Config, ListConfig, TaskConfig

SMOOTHED = {"multiclass": ("ce",), "binary": ("bce",), "multilabel": ("bce",)}  # the losses with label_smoothing
COUNTED = {"ldam": "counts", "logit_adjusted": "prior", "seesaw": "counts"}  # losses that need the training list's counts, and as what


@dataclass(frozen=True, slots=True)
class Data:
    """Tasks, and the tables of the splits; paths are ready to open."""

    tasks: tuple[Task, ...]
    train: LabelTable
    val: LabelTable | None
    test: LabelTable | None

    def split(self, name: str) -> LabelTable:
        """The table of train, val or test; ConfigError if the config has no such list."""
        table: LabelTable | None = {"train": self.train, "val": self.val, "test": self.test}.get(name)
        if table is None:
            raise ConfigError(f"the config has no data.{name}")
        return table


def load_data(config: Config) -> Data:
    """Read every list of the config. ConfigError and LabelError say where they disagree with it, or with one another."""
    train = training_table(config)
    tasks = tuple(task_of(column, config.tasks.get(column.name, TaskConfig()), train) for column in _chosen(config, train))
    others = {name: load_list(config, chosen) for name, chosen in (("val", config.data.val), ("test", config.data.test)) if chosen is not None}
    for name, table in others.items():
        _agree(train, table, tasks, name)
    return Data(tasks, train, others.get("val"), others.get("test"))


def train_counts(data: Data) -> dict[str, list[int]]:
    """Training samples of each class or label by task; of a binary task those of the positive one; none of an age."""
    counts = {t.name: class_counts(data.train, data.train.column(t.name)).tolist() for t in data.tasks if t.kind != "age"}
    kinds = {task.name: task.kind for task in data.tasks}
    missing = {t.name: [_missing(data.train, data.train.column(t.name))] if t.na == "class" else [] for t in data.tasks}
    return {name: n[1:] if kinds[name] == "binary" else n + missing[name] for name, n in counts.items()}


def training_table(config: Config) -> LabelTable:
    """The training list, or the sources joined."""
    if config.data.train is not None:
        return load_list(config, config.data.train)
    return joined({source.name or source.labels: load_list(config, source) for source in config.data.sources})


def load_list(config: Config, chosen: ListConfig) -> LabelTable:
    """One list of a config, its paths below its root."""
    return list_table(chosen, config.find)


def list_table(chosen: ListConfig, find: Callable[[str], Path] = Path) -> LabelTable:
    """One list, its paths below its root; `find` says where a path of it lies."""
    path = find(chosen.labels)
    table = read_labels(path, chosen.format, **_found(chosen.options, find))
    root = find(chosen.root) if chosen.root else path if path.is_dir() else path.parent
    return rooted(table.split(chosen.split) if chosen.split else table, root)


def split_tables(config: Config) -> dict[str, LabelTable]:
    """The lists of a config by split, as they are: whether they agree is for `load_data`."""
    others = {name: load_list(config, chosen) for name, chosen in (("val", config.data.val), ("test", config.data.test)) if chosen is not None}
    return {"train": training_table(config), **others}


def _found(options: dict[str, Any], find: Callable[[str], Path]) -> dict[str, Any]:
    """Reader options; those that are files are looked for as all paths of a config; words that YAML took for numbers are words again."""
    made = dict(options)
    for name, value in options.items():
        if name in ("partition", "identities"):
            made[name] = str(find(str(value)))
        elif name in ("missing", "negative", "classes", "tasks", "stains", "splits"):
            made[name] = [str(word) for word in (value if isinstance(value, list) else [value])]
    return made


def _chosen(config: Config, table: LabelTable) -> list[Column]:
    """The tasks of the config in its order, or all of the list."""
    names = list(config.tasks) or [column.name for column in table.columns]
    known = [column.name for column in table.columns]
    for name in names:
        if name not in known:
            raise ConfigError(f"the config has a task {name!r}, and {table.file} has none of that name{suggest(name, known)}")
    return [table.column(name) for name in names]


def task_of(column: Column, config: TaskConfig, table: LabelTable) -> Task:
    """The task of a column, with what the config says of it. LabelError if no row of the training has a label."""
    from ..losses import check_loss  # torch comes with it, which inspect does without

    if config.kind and config.kind != column.kind:
        raise ConfigError(f"task {column.name!r} is {config.kind} in the config and {column.kind} in {table.file}")
    if config.classes and config.classes != column.classes:
        foreign = [c for c in config.classes if c not in column.classes]
        which = f"the config's {foreign[0]!r} is not in it" if foreign else f"it has {', '.join(column.classes[:20])}, in this order"
        raise ConfigError(f"task {column.name!r}: {table.file} has other classes: {which}")
    if not table.present[column.name].any():
        raise LabelError(f"{table.file}: every row is NA for task {column.name!r}, so nothing can be learned of it")
    span: dict[str, Any] = {}
    if column.kind == "age":
        span = {"low": int(column.classes[0]), "high": int(column.classes[-1].rstrip("+"))}
    task = Task(
        name=column.name,
        kind=column.kind,
        classes=() if column.kind == "age" else column.classes,
        loss=config.loss,
        weight=config.weight,
        na=config.na,
        normalization=config.normalization,
        options=_loss_options(column, config, table),
        **span,
    )
    check_loss(task)
    return task


def _loss_options(column: Column, config: TaskConfig, table: LabelTable) -> dict[str, Any]:
    options = dict(config.options)
    counts = [int(n) for n in class_counts(table, column)] + ([_missing(table, column)] if config.na == "class" else [])
    if config.loss in COUNTED and COUNTED[config.loss] not in options:
        options[COUNTED[config.loss]] = counts
    if config.label_smoothing:
        if (config.loss or SMOOTHED.get(column.kind, ("",))[0]) not in SMOOTHED.get(column.kind, ()):
            raise ConfigError(
                f"task {column.name!r}: label_smoothing is of the losses {SMOOTHED.get(column.kind, ())}, not of {config.loss or column.kind!r}"
            )
        options["label_smoothing"] = config.label_smoothing
    if config.class_weights:
        weights = _weights(column, config, counts, table)
        _check_weighable(column, config, set(weights))
        options |= weights
    return options


def _check_weighable(column: Column, config: TaskConfig, weights: set[str]) -> None:
    """ConfigError if the task's loss has no such weights; a loss that there is not is for the task to refuse."""
    from ..losses import option_names

    losses = LOSSES[column.kind]
    if config.loss in losses and not weights <= option_names(column.kind, config.loss):
        able = [name for name in losses if weights <= option_names(column.kind, name) or (name == "focal" and config.class_weights != "deepmar")]
        raise ConfigError(
            f"task {column.name!r}: class_weights {config.class_weights} does not go with the loss {config.loss!r}, which has no "
            f"{' and '.join(sorted(weights))}; it goes with {', '.join(able)}"
        )


def _weights(column: Column, config: TaskConfig, counts: list[int], table: LabelTable) -> dict[str, Any]:
    """Options of the loss that weigh its classes: weight, pos_weight, or focal's alpha; a label that is always or never on keeps 1."""
    from ..losses.weights import class_weights, label_weights  # torch comes with it, which inspect does without

    if column.kind == "age":
        raise ConfigError(f"task {column.name!r}: an age has no class_weights; its years are an order")
    if column.kind == "multiclass":
        return {"alpha" if config.loss == "focal" else "weight": class_weights(counts, config.class_weights)}
    present = table.present[column.name]
    totals = [float(n) for n in present.sum(0)] if column.kind == "multilabel" else [float(present.sum())]
    positives = [float(n) for n in counts] if column.kind == "multilabel" else [float(counts[1])]
    if config.class_weights == "deepmar":
        return label_weights(positives, totals)
    pairs = [class_weights([t - p, p], config.class_weights) if 0 < p < t else [1.0, 1.0] for p, t in zip(positives, totals, strict=True)]
    if config.loss == "focal":
        return {"alpha": [positive / (negative + positive) for negative, positive in pairs]}
    return {"pos_weight": [positive / negative if negative else 1.0 for negative, positive in pairs]}


def _missing(table: LabelTable, column: Column) -> int:
    return int((~table.present[column.name]).sum())


def _agree(train: LabelTable, table: LabelTable, tasks: tuple[Task, ...], name: str) -> None:
    """A list that is tested must know its tasks as the training list does; it may lack some."""
    ours = {task.name for task in tasks}
    shared = [column for column in table.columns if column.name in ours]
    if not shared:
        raise LabelError(f"{table.file} (data.{name}) has none of the tasks {', '.join(sorted(ours))}")
    for column in shared:
        wanted = train.column(column.name)
        if column.kind != wanted.kind or column.classes != wanted.classes:
            raise LabelError(f"task {column.name!r} is {wanted.header()} in {train.file} and {column.header()} in {table.file} (data.{name})")


def check_files(table: LabelTable, limit: int = 10) -> None:
    """LabelError for files that are not there, the first ones by the line that names them."""
    lost = [(table.places[i], file) for i in range(len(table)) for file in table.files(i) if not Path(file).is_file()]
    if lost:
        listed = "\n".join(f"{place}: no such file: {file}" for place, file in lost[:limit])
        raise LabelError(listed + (f"\nand {len(lost) - limit} more" if len(lost) > limit else ""))
