"""The config of `decant classify`: one YAML file, read strictly into frozen values.

A key that is not here is refused with its line and the nearest one; `key=value` on the command line replaces a value, `train.lr=0.01`.
Paths are tried from the working directory, then from the config's own folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from prototxt import ConfigError
from prototxt.files import read_file, write_file

T = TypeVar("T")
LIMIT = 16 << 20  # bytes of a config


@dataclass(frozen=True, slots=True)
class ListConfig:
    """A label list: its file, the folder of its images (by default the file's own), its format, the part that is meant, reader options.

    `share` is the part of a batch that a source of the training gets under `mixing: shares`.
    """

    labels: str
    root: str = ""
    format: str = "native"
    split: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image becomes: channels (0: one a plane of the list), size, and x = (pixel * scale - mean) / std by channel in `order`."""

    height: int = 224
    width: int = 224
    channels: int = 3
    order: Literal["RGB", "BGR"] = "RGB"
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where rows come from. One list (`train`) or several (`sources`), which may label different tasks and are mixed in each batch.

    proportional: a row is a row. shares: as each source's `share` says. temperature: p ~ n ^ temperature.
    `on_error: skip` leaves out images that do not decode, and counts them; `cache` keeps decoded images in memory.
    """

    train: ListConfig | None = None
    sources: tuple[ListConfig, ...] = ()
    val: ListConfig | None = None
    test: ListConfig | None = None
    mixing: Literal["proportional", "shares", "temperature"] = "proportional"
    temperature: float = 0.5
    image: ImageConfig = field(default_factory=ImageConfig)
    batch: int = 32
    workers: int = 2
    on_error: Literal["stop", "skip"] = "stop"
    cache: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """Which rows an epoch draws, and how often; `task` is the one whose classes are balanced. Options are the sampler's own."""

    name: str = "instance"
    task: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BranchConfig:
    """Tasks that share more than the trunk (`pycls.heads.Branch`).

    With a `sampler` they learn from batches of their own, and from those alone.
    """

    tasks: tuple[str, ...]
    at: str = ""
    pool: Literal["avg", "max", "avgmax", "flatten"] = "avg"
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    cosine: bool = False
    lr_mult: float = 1.0
    detach: bool = False
    sampler: SamplerConfig | None = None


@dataclass(frozen=True, slots=True)
class SecondStageConfig:
    """What becomes of the head of a multiclass task (by default the first) after a first run, whose trunk stays: `pycls.classify.second_stage`."""

    method: Literal["", "crt", "lws", "tau", "ncm"] = ""
    task: str = ""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The trunk: a prototxt (with weights) cut at a blob, or `torchvision:resnet18`; heads are attached behind it, or behind `branches`.

    `backbone_lr` multiplies the rate of the trunk; for the first `frozen_epochs` it does not learn at all. `pool` and `dropout` stand
    before the head of a task that no branch names. A head may start at the prior of its labels. `start` is a
    best-<epoch>.safetensors of another run to go on from; without `start_heads` its trunk alone. `second_stage` says what the head of a task
    becomes then.
    """

    net: str = ""
    weights: str = ""
    at: str = ""
    pool: Literal["avg", "max", "avgmax", "flatten"] = "avg"
    dropout: float = 0.0
    backbone_lr: float = 1.0
    frozen_epochs: int = 0
    branches: tuple[BranchConfig, ...] = ()
    start_at_prior: bool = False
    start: str = ""
    start_heads: bool = True
    second_stage: SecondStageConfig = field(default_factory=SecondStageConfig)


@dataclass(frozen=True, slots=True)
class CenterConfig:
    """Center loss: `weight` is the paper's lambda, `alpha` how far the centers follow."""

    weight: float = 0.003
    alpha: float = 0.5


@dataclass(frozen=True, slots=True)
class TripletConfig:
    """Triplet loss over the triplets of a batch that a miner picks."""

    weight: float = 1.0
    margin: float = 0.2
    miner: Literal["all", "hard", "semihard"] = "hard"
    squared: bool = False
    swap: bool = False
    reduction: Literal["mean", "violating", "sum"] = "mean"


@dataclass(frozen=True, slots=True)
class ContrastiveConfig:
    """Contrastive loss, Caffe's, over all pairs of a batch."""

    weight: float = 1.0
    margin: float = 1.0
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class MarginConfig:
    """ArcFace or CosFace; without a margin the paper's. Its class vectors are learned beside the head, and do not ship."""

    weight: float = 1.0
    margin: float | None = None
    scale: float = 64.0


@dataclass(frozen=True, slots=True)
class MetricConfig:
    """Losses on the features that a task's head reads, each if it is there. They are added to the task's loss, before the task's weight."""

    center: CenterConfig | None = None
    triplet: TripletConfig | None = None
    contrastive: ContrastiveConfig | None = None
    arcface: MarginConfig | None = None
    cosface: MarginConfig | None = None


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """What the label file does not say of a task. `kind` and `classes`, if they are given, must agree with it.

    `class_weights` (inverse, sqrt, effective, median; of labels deepmar too) weighs the loss by the training list's counts. `threshold` says how
    thresholds are found: by F1, by the rate of positives, or left at 0.5; below the probability `abstain` an answer is NA.
    """

    kind: str = ""
    classes: tuple[str, ...] = ()
    loss: str = ""
    weight: float = 1.0
    na: Literal["ignore", "class", "negative"] = "ignore"
    normalization: str = "valid"
    options: dict[str, Any] = field(default_factory=dict)
    class_weights: str = ""
    label_smoothing: float = 0.0
    metric: MetricConfig = field(default_factory=MetricConfig)
    threshold: Literal["f1", "rate", "fixed"] = "f1"
    abstain: float = 0.0


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Random changes of a training image; 0 leaves one out. With `minority_only`, and it alone, images without a rare class stay as they are.

    rotation in degrees; perspective, translation, occlusion as shares of the size; zoom as +- share; noise in standard deviations of 255;
    blur as the largest sigma in pixels; brightness, contrast, saturation as +- share; hue as a share of the circle.
    """

    rotation: float = 0.0
    perspective: float = 0.0
    translation: float = 0.0
    zoom: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    occlusion: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    flip: bool = False
    vertical_flip: bool = False
    crop: float = 0.0
    minority_only: bool = False
    minority: float = 0.5
    strength: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """The update rule. Biases and normalization layers do not decay unless `decay_all`."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_all: bool = False
    clip: float = 0.0


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The rate over the updates: Caffe's policies, or cosine, one_cycle, plateau; `warmup` updates rise to it in a line first.

    `monitor` of plateau is the early stop's; `patience` and `min_delta` count evaluations.
    """

    policy: str = "cosine"
    warmup: int = 0
    gamma: float = 0.1
    power: float = 0.75
    stepsize: int = 1000
    stepvalue: tuple[int, ...] = ()
    floor: float = 0.0
    peak: float = 0.3
    patience: int = 2
    min_delta: float = 1e-4


@dataclass(frozen=True, slots=True)
class EmaConfig:
    """An exponential mean of the weights, whose decay rises: min(decay, 1 - (1 + step / inv_gamma) ^ -power). 0 keeps none."""

    decay: float = 0.0
    inv_gamma: float = 1.0
    power: float = 0.667


@dataclass(frozen=True, slots=True)
class StopConfig:
    """The figure that picks the best: `<task>/<metric>`, `loss` or `score`, and how many evaluations without a better one end the run (0: all)."""

    monitor: str = "score"
    mode: Literal["max", "min", ""] = ""
    patience: int = 0
    min_delta: float = 0.0
    keep: int = 1


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How it is trained. A step of the optimizer takes `accumulate` batches, exactly as if they were one."""

    epochs: int = 10
    accumulate: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    task_weighting: Literal["fixed", "uncertainty", "gradnorm", "pcgrad"] = "fixed"
    amp: Literal["off", "bf16", "fp16"] = "off"
    compile: bool = False
    channels_last: bool = False
    sync_batchnorm: bool = False
    deterministic: bool = False
    log_every: int = 20
    checkpoint_every: int = 0
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class TtaConfig:
    """Views of an image whose outputs are joined at a test: it and its mirror, or more."""

    views: tuple[Literal["flip", "vertical_flip", "rotate"], ...] = ()
    join: Literal["mean", "max"] = "mean"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole run. Without `tasks`, all tasks of the training list with their defaults."""

    data: DataConfig
    model: ModelConfig
    name: str = "run"
    seed: int = 0
    output: str = "runs"
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    tta: TtaConfig = field(default_factory=TtaConfig)
    folder: str = ""  # that paths start from: the config file's own

    def find(self, path: str) -> Path:
        """A path of the config: from the working directory, else from the config's folder."""
        here = Path(path)
        beside = Path(self.folder) / path
        return beside if not here.exists() and beside.exists() else here


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a file, with `key=value` in place of its values. ConfigError says the line, and the nearest key."""
    import yaml

    text = read_file(path, limit=LIMIT)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        lines: dict[str, int] = {}
        values = _plain(node, "", lines, str(path)) if node is not None else {}
    except (yaml.YAMLError, RecursionError, ValueError) as exc:  # ValueError: a date that the calendar lacks
        raise ConfigError(f"{path}: no YAML: {' '.join(str(exc).split())[:300]}") from exc
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a config is `key: value`, not a list or a word")
    for item in overrides:
        _override(values, item, lines)
    values.setdefault("folder", str(Path(path).parent))
    config = _made(Config, values, "", _Places(str(path), lines))
    assert isinstance(config, Config)
    _check(config, str(path))
    return config


def write_config(config: Config, path: Path) -> None:
    """Write the effective config, every value in it, and the folder that its paths start from, so that it can be read again."""
    import yaml

    values = _listed(asdict(config)) | {"folder": str(Path(config.folder).resolve())}
    write_file(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def section(cls: type[T], values: Any, file: str) -> T:
    """One part of a config from plain values, as a bundle holds it; ConfigError as for a config."""
    made: T = _made(cls, values, "", _Places(file, {}))
    return made


@dataclass(frozen=True)
class _Places:
    """Where each key stands."""

    file: str
    lines: Mapping[str, int]

    def of(self, key: str) -> str:
        line = self.lines.get(key)
        return f"{self.file}:{line}" if line else self.file


def _plain(node: Any, key: str, lines: dict[str, int], file: str) -> Any:
    """A YAML node as plain values; `lines` gets the line of each key. A key twice is refused, which YAML itself would not do."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value)
            below = f"{key}.{name}" if key else name
            if name in made:
                raise ConfigError(f"{file}:{name_node.start_mark.line + 1}: the key {below!r} stands here a second time")
            lines[below] = name_node.start_mark.line + 1
            made[name] = _plain(value_node, below, lines, file)
        return made
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, f"{key}.{i}", lines, file) for i, item in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    return loader.construct_object(node)


def _override(values: dict[str, Any], item: str, lines: dict[str, int]) -> None:
    """Put `a.b=c` into the values."""
    import yaml

    key, equals, text = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"{item!r} is not key=value, as train.optimizer.lr=0.01 is")
    *above, last = key.split(".")
    at: Any = values
    for name in above:
        at = at.setdefault(name, {}) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            raise ConfigError(f"{item!r}: {name!r} holds no further keys")
    try:
        at[last] = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise ConfigError(f"{item!r}: the value is no YAML: {' '.join(str(exc).split())[:200]}") from exc
    for known in [k for k in lines if k == key or k.startswith(key + ".")]:
        del lines[known]


def _made(cls: Any, values: Any, key: str, places: _Places) -> Any:
    """A dataclass of a mapping, strictly."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{places.of(key)}: {key!r} takes keys and values ({', '.join(_keys(cls)[:6])}, ...), not {values!r:.40}")
    hints, known = get_type_hints(cls), _keys(cls)
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{places.of(_below(key, name))}: unknown key {_below(key, name)!r}; {hint}")
    lacking = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING and f.name not in values]
    if lacking:
        raise ConfigError(f"{places.of(key)}: {key + ' ' if key else ''}lacks {lacking[0]!r}")
    return cls(**{name: _value(hints[name], value, _below(key, name), places) for name, value in values.items()})


def _keys(cls: Any) -> list[str]:
    return [f.name for f in fields(cls)]


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _value(hint: Any, value: Any, key: str, places: _Places) -> Any:
    """A value of a type; ConfigError with what it takes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _made(hint, {} if value is None else value, key, places)
    if origin in (Union, UnionType):
        return None if value is None else _value(next(a for a in arguments if a is not NoneType), value, key, places)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_value(arguments[0], item, f"{key}.{i}", places) for i, item in enumerate(items))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{places.of(key)}: {key!r} takes keys and values, not {value!r:.40}")
        return {str(name): _value(arguments[1], item, _below(key, str(name)), places) for name, item in value.items()}
    if origin is Literal:
        value = "off" if value is False and "off" in arguments else value  # YAML reads the word off as false
        if value not in arguments:
            near = get_close_matches(str(value), [str(a) for a in arguments], n=1)
            raise ConfigError(
                f"{places.of(key)}: {key} is {value!r}; " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(map(repr, arguments))}")
            )
        return value
    return value if hint is Any else _scalar(hint, value, key, places)


def _scalar(hint: Any, value: Any, key: str, places: _Places) -> Any:
    if hint is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-3 for a word
        except (TypeError, ValueError):
            pass
    takes = {str: "a word", bool: "true or false", int: "a whole number", float: "a number"}[hint]
    raise ConfigError(f"{places.of(key)}: {key} takes {takes}, not {value!r:.40}")


def _check(config: Config, file: str) -> None:
    """What the types do not say."""
    data, train, image, stage = config.data, config.train, config.data.image, config.model.second_stage.method
    metric = any(task.metric != MetricConfig() for task in config.tasks.values())
    lists = [source for source in (data.train, *data.sources, data.val, data.test) if source is not None]
    wrong = [
        (bool(data.train) == bool(data.sources), "data has `train`, one list, or `sources`, several; exactly one of the two"),
        (not config.model.net, "model.net is missing: a .prototxt, or torchvision:resnet18"),
        (data.batch < 1 or train.accumulate < 1 or train.epochs < 1, "data.batch, train.accumulate and train.epochs are at least 1"),
        (data.workers < 0, "data.workers is at least 0"),
        (image.height < 1 or image.width < 1 or image.channels < 0, "data.image has a size of at least 1"),
        (any(s == 0 for s in image.std), "data.image.std holds a 0, which nothing can be divided by"),
        (data.mixing == "shares" and not all(s.share > 0 for s in data.sources), "data.mixing: shares needs a share above 0 at each source"),
        (len({s.name or s.labels for s in data.sources}) < len(data.sources), "two of data.sources have one name"),
        (any(not s.labels for s in lists), "a list without `labels`"),
        (any(not branch.tasks for branch in config.model.branches), "a branch of model.branches without tasks"),
        (
            train.optimizer.nesterov and not train.optimizer.momentum > 0,
            "train.optimizer.nesterov looks ahead by the momentum: it needs train.optimizer.momentum above 0",
        ),
        (not train.ema.inv_gamma > 0, f"train.ema.inv_gamma is {train.ema.inv_gamma:g}; steps are divided by it, so it is above 0"),
        (
            train.task_weighting != "fixed" and (train.accumulate > 1 or any(branch.sampler for branch in config.model.branches)),
            "train.task_weighting weighs whole steps: it needs train.accumulate 1, and no branch with a sampler of its own",
        ),
        (
            train.task_weighting != "fixed" and train.amp == "fp16",
            "train.task_weighting needs amp off or bf16: fp16 scales the losses",
        ),
        (
            stage and not (config.model.start and config.model.start_heads and not config.model.start_at_prior),
            "model.second_stage goes on from the heads of a first run: model.start names its best-<epoch>.safetensors; and no start_at_prior",
        ),
        (stage in ("tau", "ncm") and train.ema.decay > 0, "model.second_stage: tau and ncm train nothing, so train.ema has nothing to average"),
        (
            metric and (config.augment.mixup > 0 or config.augment.cutmix > 0),
            "tasks have losses on features (metric), which need one class a row: they do not go with augment.mixup and cutmix",
        ),
        (metric and train.task_weighting in ("gradnorm", "pcgrad"), "train.task_weighting gradnorm and pcgrad know no losses on features (metric)"),
        (config.augment.mixup > 0 and config.augment.cutmix > 0, "augment has mixup and cutmix; choose one"),
    ]
    for is_wrong, what in wrong:
        if is_wrong:
            raise ConfigError(f"{file}: {what}")
    for key, value, low, high in _bounded(config):
        if not low <= value <= high:
            raise ConfigError(f"{file}: {key} is {value:.15g}; it is at least {low:g}" + (f" and at most {high:.15g}" if high < math.inf else ""))


def _bounded(config: Config) -> Iterator[tuple[str, float, float, float]]:
    """Numbers that have bounds: key, value, the least and the largest that it may be."""
    model, train, augment = config.model, config.train, config.augment
    optimizer, schedule, inf = train.optimizer, train.schedule, math.inf
    yield "seed", config.seed, 0, 2**32 - 1
    yield "model.dropout", model.dropout, 0, 1
    yield "model.backbone_lr", model.backbone_lr, 0, inf
    for i, branch in enumerate(model.branches):
        yield f"model.branches.{i}.dropout", branch.dropout, 0, 1
        yield f"model.branches.{i}.lr_mult", branch.lr_mult, 0, inf
        for width in branch.hidden:
            yield f"model.branches.{i}.hidden", width, 1, inf
    for name, task in config.tasks.items():
        yield f"tasks.{name}.label_smoothing", task.label_smoothing, 0, 1
    yield "augment.mixup", augment.mixup, 0, inf
    yield "augment.cutmix", augment.cutmix, 0, inf
    yield "train.optimizer.lr", optimizer.lr, 0, inf
    yield "train.optimizer.momentum", optimizer.momentum, 0, inf
    yield "train.optimizer.weight_decay", optimizer.weight_decay, 0, inf
    yield "train.optimizer.clip", optimizer.clip, 0, inf
    yield "train.schedule.warmup", schedule.warmup, 0, inf
    if schedule.policy == "step":
        yield "train.schedule.stepsize", schedule.stepsize, 1, inf
    if schedule.policy == "sigmoid":
        yield "train.schedule.gamma", schedule.gamma, 0, inf
    yield "train.ema.decay", train.ema.decay, 0, 1
    yield "train.stop.patience", train.stop.patience, 0, inf
    yield "train.stop.keep", train.stop.keep, 1, inf
    yield "train.log_every", train.log_every, 1, inf
    yield "train.checkpoint_every", train.checkpoint_every, 0, inf


def _listed(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
