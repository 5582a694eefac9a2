"""to_caffe: trace a module, run it on an example for its shapes, translate each node, write, read back and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from prototxt import NetError

from ..comparison.errors import blob_error, says_nothing
from ..graph import Graph, Value
from ..modes import evaluating
from ..net import CaffeNet, load
from . import functions, own  # noqa: F401  they register their translators
from .calls import FUNCTIONS, MODULES, Call, Translator
from .writer import Blob, CannotWrite, Writer

WORST = 1e-5  # of the largest value: what a net that was written may differ by when it is read back


@dataclass(frozen=True, slots=True)
class CaffeFiles:
    """What was written, and how far the outputs of what was read back are from the module's, relative to their largest value."""

    prototxt: Path
    caffemodel: Path
    outputs: tuple[str, ...]
    layers: int
    error: float

    def __bool__(self) -> bool:
        return self.error <= WORST


def to_caffe(module: nn.Module | CaffeNet, example: Tensor | Sequence[Tensor], path: str | Path, name: str = "") -> CaffeFiles:
    """Write `path`.prototxt and `path`.caffemodel of layers of BVLC Caffe that compute what the module computes at inference.

    The module must be traceable by torch.fx; shapes are those of the example. A converted net keeps its name, and those of its layers and
    outputs. The files are read back and compared, on the example and on other values: what a forward draws or takes from the example is a
    constant of the files, and shows. NetError lists every part that has no layers in BVLC Caffe, with its place in the module and the way out.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".prototxt", ".caffemodel") else path
    names = _Names()
    if isinstance(module, CaffeNet):
        names, name = _names_of(module.graph), name or module.graph.name
        module = module.module
    with evaluating(module), torch.no_grad():
        traced = _traced(module)
        values = _Recorder(traced).recorded(inputs)
        writer, outputs = _written(traced, values, name or path.name, names)
        want = {blob.name: values[node] for blob, node in outputs}
        _check_outputs(want)
        other = _other_values(inputs)
        again = _outputs(traced, _run(module, other))
        runs = [(inputs, want), (other, {blob.name: again[node] for blob, node in outputs})]
    prototxt, caffemodel = Path(f"{path}.prototxt"), Path(f"{path}.caffemodel")
    writer.write(prototxt, caffemodel)
    return CaffeFiles(prototxt, caffemodel, tuple(want), len(writer.layers), _difference(prototxt, caffemodel, runs))


@dataclass(frozen=True, slots=True)
class _Names:
    """Names that a converted net keeps: of layers and of their tops by module path, of inputs (layer, blob) and of outputs in order.

    Of a blob that is written in place the first version has the name, but of an output the last; the others are named after their layers.
    """

    layers: Mapping[str, str] = field(default_factory=dict)
    tops: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # "" for one that is named after its layer
    inputs: Sequence[tuple[str, str]] = ()
    outputs: Sequence[str] = ()


def _names_of(graph: Graph) -> _Names:
    def named(value: Value) -> str:
        return value.blob if value == (graph.last[value.blob] if value.blob in graph.outputs else Value(value.blob)) else ""

    steps = [step for step in graph.steps if step.tops]
    fed = {top: layer.name if len(layer.tops) == 1 and layer.name else top for layer in graph.data_layers for top in layer.tops}
    return _Names(
        {step.key: step.name for step in steps if step.name},
        {step.key: tuple(map(named, step.tops)) for step in steps},
        [(fed.get(blob, blob), blob) for blob in graph.inputs],
        graph.outputs,
    )


class _Tracer(fx.Tracer):
    """Does not look into modules that have a translator."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = type(m).__module__.startswith("converters.modules.")
        return ours or _translator(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _translator(module: nn.Module) -> Translator | None:
    return MODULES.get(type(module))


def _traced(module: nn.Module) -> fx.GraphModule:
    if _translator(module) is not None:
        module = nn.Sequential(module)
    try:
        return fx.GraphModule(module, _Tracer().trace(module))
    except Exception as exc:  # whatever the module's own code raises on a proxy
        raise NetError(
            f"torch.fx cannot trace {type(module).__name__}: {_first_line(exc)[:200]}; its forward must not branch on values of tensors: "
            "take that part out, or write the rest"
        ) from exc


class _Recorder(fx.Interpreter):
    """Runs the traced module and keeps what every node gave."""

    def recorded(self, inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
        """The value of each node."""
        self.values: dict[fx.Node, Any] = {}
        wanted = [node for node in self.module.graph.nodes if node.op == "placeholder" and not node.args]  # type: ignore[union-attr]
        if len(wanted) != len(inputs):
            raise NetError(f"the module takes {len(wanted)} inputs ({', '.join(str(n.target) for n in wanted)}), the example has {len(inputs)}")
        _run(self.run, inputs)
        return self.values

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and keep its value."""
        self.values[n] = super().run_node(n)
        return self.values[n]


def _run(module: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """What the module gives for copies of the inputs, which it may write over."""
    try:
        return module(*(x.clone() for x in inputs))
    except (RuntimeError, IndexError, TypeError, ValueError) as exc:
        raise NetError(f"the module does not run on the example: {_first_line(exc)[:300]}") from exc


def _first_line(exc: Exception) -> str:
    return next(iter(str(exc).splitlines()), "") or type(exc).__name__


def _other_values(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The values of each input in another order, which its layers take too, as labels or as indices; of an image of one value, random ones."""
    generator = torch.Generator().manual_seed(1)

    def other(x: Tensor) -> Tensor:
        if x.is_floating_point() and x.dim() > 2 and x.numel() and bool((x == x.reshape(-1)[0]).all()):
            return torch.randn(x.shape, generator=generator).to(x)
        return x.reshape(-1)[torch.randperm(x.numel(), generator=generator).to(x.device)].reshape(x.shape)

    return tuple(map(other, inputs))


def _outputs(traced: fx.GraphModule, made: Any) -> dict[fx.Node, Tensor]:
    """The tensors that the module gave, by the nodes that stand for them."""
    (end,) = (node for node in traced.graph.nodes if node.op == "output")
    return {node: value for node, value in zip(_leaves(end.args[0]), _leaves(made), strict=True) if isinstance(node, fx.Node)}


def _leaves(made: Any) -> Iterator[Any]:
    if isinstance(made, (Mapping, tuple, list)):
        for part in made.values() if isinstance(made, Mapping) else made:
            yield from _leaves(part)
    else:
        yield made


def _check_outputs(want: Mapping[str, Tensor]) -> None:
    if not want:
        raise NetError("the module has no output that depends on its inputs, so there is nothing to write")
    silent = next((name for name, value in want.items() if says_nothing(value.float().numpy())), None)
    if silent is not None:
        raise NetError(f"the output {silent!r} has no finite value on the example, so nothing to compare with; give values that the module takes")


def _written(traced: fx.GraphModule, values: Mapping[fx.Node, Any], name: str, names: _Names) -> tuple[Writer, list[tuple[Blob, fx.Node]]]:
    """The net, and its outputs with the nodes that they hold."""
    writer, env, refused = Writer(name), dict[fx.Node, Any](), list[str]()
    writer.reserve((*names.outputs, *(top for tops in names.tops.values() for top in tops if top)))
    inputs = iter(names.inputs)
    outputs: list[tuple[Blob, fx.Node]] = []
    for node in traced.graph.nodes:
        value = values[node]
        if node.op == "placeholder":
            layer, blob = next(inputs, (str(node.target), str(node.target)))
            env[node] = writer.input(blob, tuple(value.shape), layer) if isinstance(value, Tensor) else value
        elif node.op == "output":
            outputs = [(env[n], n) for n in node.all_input_nodes]
        elif node.op == "get_attr" or not _holds_blobs(node, env):
            env[node] = value
        else:
            path = str(node.target) if node.op == "call_module" else ""
            writer.current, first = names.layers.get(path, path) or node.name, len(writer.layers)
            try:
                env[node] = writer.named(_translated(traced, node, env, value, writer), names.tops.get(path, ()), first)
                if _overwrites(traced, node):
                    env[_over(node)] = env[node]
            except CannotWrite as exc:
                refused.append(f"  {_place(traced, node)}: {exc}")
                env[node] = _stand_in(value)
    if refused:
        raise NetError("BVLC Caffe has no layers for this module:\n" + "\n".join(refused))
    wanted = [*names.outputs] or [""] * len(outputs)
    outputs = [(_dangling(writer, blob, node, name), node) for (blob, node), name in zip(outputs, wanted, strict=True)]
    kept = {blob.name for blob, _ in outputs}
    writer.silence([blob for blob in writer.unread() if blob.name not in kept])
    return writer, outputs


_OF_SHAPE = {"shape", "size", "dim", "ndim", "numel", "nelement", "ndimension", "dtype", "device", "layout", "is_floating_point", "is_cuda"}


def _holds_blobs(node: fx.Node, env: Mapping[fx.Node, Any]) -> bool:
    """Whether a node reads a blob's values, and not only its shape."""
    if (node.op == "call_method" and node.target in _OF_SHAPE) or (node.target is getattr and node.args[1] in _OF_SHAPE):
        return False

    def blobs(value: Any) -> bool:
        return isinstance(value, Blob) or (isinstance(value, (tuple, list)) and any(map(blobs, value)))

    return any(blobs(env[n]) for n in node.all_input_nodes)


def _overwrites(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node writes its result over its first argument, which whoever reads that later sees."""
    if not isinstance(_over(node), fx.Node):
        return False
    if node.op == "call_module":
        return bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or name in ("iadd", "isub", "imul", "itruediv") or bool(node.kwargs.get("inplace", False))


def _over(node: fx.Node) -> Any:
    """What a node writes over, if it writes over anything: its first argument."""
    return node.args[0] if node.args else node.kwargs.get("input")


def _translated(traced: fx.GraphModule, node: fx.Node, env: Mapping[fx.Node, Any], value: Any, writer: Writer) -> Any:
    module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    translate = _translator(module) if module is not None else FUNCTIONS.get(node.target) or FUNCTIONS.get(_qualified(node.target))
    if translate is None:
        raise CannotWrite(_way_out(module if module is not None else _operation(node)))
    args, kwargs = (fx.node.map_arg(part, lambda n: env[n]) for part in (node.args, node.kwargs))
    return translate(Call(writer, args, kwargs, value, module))  # type: ignore[arg-type]


_REORDERS = "BVLC Caffe cannot reorder axes (Permute and ShuffleChannel are forks'); take it out, or keep the axes as they are"
_MULTIPLIES = "BVLC Caffe multiplies no blob by another as matrices; attention has no layers there"
_NORMALISES = "BVLC Caffe has no normalisation by one sample but MVN; use BatchNorm2d, which inference folds"
_WAYS_OUT = {
    **dict.fromkeys(("transpose", "permute", "swapaxes", "T", "mT", "H", "mH", "Permute", "ChannelShuffle"), _REORDERS),
    **dict.fromkeys(("matmul", "bmm", "einsum", "MultiheadAttention", "scaled_dot_product_attention"), _MULTIPLIES),
    **dict.fromkeys(("LayerNorm", "layer_norm", "GroupNorm", "group_norm", "InstanceNorm2d", "instance_norm"), _NORMALISES),
    **dict.fromkeys(("GELU", "gelu", "Mish", "mish", "SELU", "CELU"), "BVLC Caffe has ReLU, PReLU, ELU, Sigmoid, TanH, BNLL and Swish (nn.SiLU)"),
}


def _way_out(target: nn.Module | str) -> str:
    """What to do about a module, a function or a method that has no translation."""
    name = target if isinstance(target, str) else type(target).__name__
    if isinstance(target, nn.Module) and type(target).__module__.endswith("losses"):
        return "a loss, which inference does without; write the net that ends before it"
    return _WAYS_OUT.get(name, "has no layer in BVLC Caffe and no translation here; take it out, or put layers in its place that do the same")


def _qualified(target: Any) -> str:
    """A function's name with its module, for functions of packages that need not be installed."""
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"


def _place(traced: fx.GraphModule, node: fx.Node) -> str:
    """Where a node stands, for a message: the module's path and class, or the operation and the line that calls it."""
    if node.op == "call_module":
        return f"{node.target} ({type(traced.get_submodule(str(node.target))).__name__})"
    operation = _operation(node)
    inside = node.meta.get("nn_module_stack") or {}
    where = next((str(path) for path, _ in reversed(list(inside.values())) if path), "") if inside else ""
    return f"{node.name} ({operation}" + (f" in {where})" if where else ")")


def _operation(node: fx.Node) -> str:
    """The name of a function, a method or an attribute that a node takes."""
    if node.target is getattr:
        return str(node.args[1])
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _stand_in(value: Any) -> Any:
    """Blobs of the right shapes for what could not be written, so that all of it is found in one pass."""
    if isinstance(value, Tensor):
        return Blob("?", tuple(value.shape))
    return type(value)(map(_stand_in, value)) if isinstance(value, (tuple, list)) and not hasattr(value, "_fields") else value


def _dangling(writer: Writer, blob: Any, node: fx.Node, name: str) -> Blob:
    """The output as a blob that no layer reads, for only such ones are a net's outputs: an input, or one that is read too, is copied by Power.

    So is one of another name than the output is to have, if it is to have one.
    """
    if not isinstance(blob, Blob):
        raise NetError(f"the output {node.name} is no tensor that depends on the input")
    if blob.name not in writer.read and blob.name not in writer.inputs and name in ("", blob.name):
        return blob
    name = "" if name == blob.name else name
    writer.current, first = name or f"{blob.name}_out", len(writer.layers)
    return writer.named(writer.one("Power", [blob], blob.shape), (name,), first)  # type: ignore[no-any-return]


def _difference(prototxt: Path, caffemodel: Path, runs: Sequence[tuple[Sequence[Tensor], Mapping[str, Tensor]]]) -> float:
    """How far the outputs of the files, read back, are from the module's: the worst of several runs."""
    net = load(prototxt, weights=caffemodel, phase="TEST")
    net.module.eval()
    fed = [top for layer in net.graph.data_layers for top in layer.tops]
    errors = []
    for inputs, want in runs:
        with torch.no_grad():
            got = net.blobs(dict(zip(fed, (x.clone().float() for x in inputs), strict=True)))
        errors += [blob_error(got[name].numpy(), value.float().numpy()) for name, value in want.items()]
    return max(errors)
