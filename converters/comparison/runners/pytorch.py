"""Nets in PyTorch: a converted net node by node, in any number format on any device; compiled; exported; and any module, by hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...graph import Graph
from ...modes import evaluating
from ...net import CaffeNet
from ..results import Side
from .base import Array, Runner, Stopped, Unavailable, bytes_by_shape, first_line

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}

_NO_MODULE = nn.Identity()


class TorchRunner(Runner):
    """Any torch module that takes the inputs in net order; it runs in eval mode, so that nothing is random and nothing is changed."""

    def __init__(self, module: Any, inputs: Sequence[str], outputs: Sequence[str], name: str = "PyTorch") -> None:
        self.module, self.inputs, self.outputs = module, tuple(inputs), tuple(outputs)
        self.inner = self.outputs
        self.side = Side(name, str(torch.__version__))

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The outputs that are `wanted`."""
        with evaluating(self.module), torch.no_grad():
            made = self.module(*(torch.from_numpy(feed[name]) for name in self.inputs))
        named = by_name(made, self.outputs)
        return {name: array(named[name]) for name in wanted if name in named}


class NetRunner(Runner):
    """A converted net, node by node: every blob, freed as soon as nobody reads it any more."""

    def __init__(self, net: CaffeNet, device: str = "cpu", precision: str = "float32", name: str = "", spec: str = "") -> None:
        self.net, self.graph, self.device, self.precision = placed(net, device, precision), net.graph, device, precision
        self.names = net.graph.value_names
        self.inputs, self.outputs = net.graph.inputs, net.graph.outputs
        shown = [self.names[top] for step in net.graph.steps for top in step.tops]
        self.inner = tuple(dict.fromkeys([*shown, *net.graph.views, *self.outputs]))
        self.side = Side(
            name or f"PyTorch on {device}" + ("" if precision == "float32" else f" in {precision}"), str(torch.__version__), precision, spec
        )

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by blob name, by the module itself."""
        with running(self.net.module, self.device, self.precision):
            made = self.net.module(*self._inputs(feed))
        return {name: array(value) for name, value in by_name(made, self.outputs).items()}

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        return dict(self.stream(feed, wanted))

    def stream(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> Iterator[tuple[str, Array]]:
        """Each blob that is `wanted` as soon as it is made."""
        left = set(wanted)
        sources = {value: blob for blob, value in self.graph.views.items()}
        last = self.graph.last
        for value, tensor in self._values(feed):
            name = self.names[value]
            if name in left:
                yield name, array(tensor)
            blob = sources.get(value)
            if blob in left and blob is not None:
                yield blob, array(tensor).reshape(self.graph.values[last[blob]])
            elif last.get(value.blob) == value and value.blob in left and name != value.blob and value.blob not in self.graph.views:
                yield value.blob, array(tensor)

    def _values(self, feed: Mapping[str, Array]) -> Iterator[tuple[Any, Tensor]]:
        """(value, tensor) in the order of the graph; what no later node reads is let go.

        Modes are changed for one node at a time: two streams take turns, and what they left behind in the other's order would stay.
        """
        interpreter = fx.Interpreter(self.net.module)
        interpreter.args_iter = iter(self._inputs(feed))
        nodes, modules = self.net.built.nodes, dict(self.net.module.named_modules())
        layers = {step.key: step.name for step in self.graph.steps}
        settled = self.device == "cpu" and not any(module.training for module in modules.values())
        for node in self.net.module.graph.nodes:
            if node.op == "output":
                break
            args, kwargs = interpreter.fetch_args_kwargs_from_env(node)
            try:
                with torch.no_grad() if settled else running(modules.get(str(node.target), _NO_MODULE), self.device, self.precision):
                    made = interpreter.env[node] = getattr(interpreter, node.op)(node.target, args, kwargs)  # run_node keeps a stack trace, slowly
            except (RuntimeError, NotImplementedError, IndexError, ValueError) as exc:
                layer = layers.get(str(node.target), node.target)
                raise Unavailable(f"{self.name} does not run layer {layer!r}: {first_line(exc)}") from exc
            if node.op != "placeholder" and node.name in nodes:
                yield nodes[node.name], made
            for dead in interpreter.user_to_last_uses.get(node, ()):
                interpreter.env.pop(dead, None)

    def _inputs(self, feed: Mapping[str, Array]) -> list[Tensor]:
        return [torch.from_numpy(feed[name]).to(self.device, DTYPES[self.precision]) for name in self.inputs]

    def bytes_of(self, name: str, feed: Mapping[str, Array]) -> int:
        """By the graph's shapes."""
        return self._sizes().get(name, 1 << 20)

    def _sizes(self) -> dict[str, int]:
        return bytes_by_shape({name: self.graph.values[value] for value, name in self.names.items()})

    def gradients(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """After one backward pass of the net's losses, or of the seeded objective where it has none."""
        from ..gradients import driven, objective_of

        net = self.net
        with torch.enable_grad(), running(net.module, self.device, self.precision, grad=True):
            net.module.zero_grad(set_to_none=True)
            blobs = net.blobs(dict(zip(self.inputs, self._inputs(feed), strict=True)))
            objective_of(net, blobs).backward()
        found = {f"{layer}/{i}": p.grad for layer, params in net.params().items() for i, p in enumerate(params)}
        made = {name: array(value) for name in driven(net.graph) if (value := found[name]) is not None}
        net.module.zero_grad(set_to_none=True)
        return made


class CallableRunner(Runner):
    """The outputs of something that was made of a net's module: compiled, or exported."""

    def __init__(self, run: Callable[..., Any], net: CaffeNet, side: Side, device: str, precision: str) -> None:
        self.run, self.net, self.side, self.device, self.precision = run, net, side, device, precision
        self.graph = net.graph
        self.inputs, self.outputs = net.graph.inputs, net.graph.outputs
        self.inner = self.outputs

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The outputs that are `wanted`."""
        with running(self.net.module, self.device, self.precision):
            try:
                made = self.run(*(torch.from_numpy(feed[name]).to(self.device, DTYPES[self.precision]) for name in self.inputs))
            except Exception as exc:  # a compiler has exceptions of its own
                raise Unavailable(f"{self.name} does not run it: {first_line(exc)}") from exc
        named = by_name(made, self.outputs)
        return {name: array(named[name]) for name in wanted if name in named}


def compiled(net: CaffeNet, device: str = "cpu", precision: str = "float32", spec: str = "") -> Runner:
    """The module under torch.compile, whole."""
    net = placed(net, device, precision)
    run = torch.compile(net.module, fullgraph=True)  # at its first pass, which is in eval mode
    return CallableRunner(run, net, Side(f"torch.compile on {device}", str(torch.__version__), precision, spec), device, precision)


def exported(net: CaffeNet, device: str = "cpu", precision: str = "float32", spec: str = "") -> Runner:
    """The module as a program of torch.export."""
    from ...samples import sample_inputs

    net = placed(net, device, precision)
    inputs = tuple(t.to(device, DTYPES[precision]) for t in sample_inputs(net.graph).values())
    try:
        with evaluating(net.module):
            program = torch.export.export(net.module, inputs, strict=False).module()
    except Exception as exc:  # torch says in many ways that it cannot
        raise Unavailable(f"torch.export does not take this net: {first_line(exc)}") from exc
    return CallableRunner(program, net, Side(f"torch.export on {device}", str(torch.__version__), precision, spec), device, precision)


class HookedRunner(Runner):
    """Any module, its submodules looked at by hooks. `shown` says which submodule makes which blobs."""

    def __init__(self, module: nn.Module, inputs: Sequence[str], outputs: Sequence[str], shown: Mapping[str, Sequence[str]], side: Side) -> None:
        self.module, self.inputs, self.outputs, self.side = module, tuple(inputs), tuple(outputs), side
        self.shown = {path: tuple(names) for path, names in shown.items()}
        self.inner = tuple(dict.fromkeys([name for names in self.shown.values() for name in names] + list(outputs)))
        self.sizes: dict[str, int] = {}

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`, copied when they are made: a later layer may write over them."""
        found: dict[str, Array] = {}
        left = set(wanted)

        def hook(names: tuple[str, ...]) -> Callable[[nn.Module, Any, Any], None]:
            def keep(_: nn.Module, __: Any, made: Any) -> None:
                for name, value in zip(names, made if isinstance(made, (tuple, list)) else (made,), strict=False):
                    if name in left and isinstance(value, Tensor):
                        found[name] = array(value.clone())

            return keep

        handles = [self.module.get_submodule(path).register_forward_hook(hook(names)) for path, names in self.shown.items() if left & set(names)]
        try:
            with torch.no_grad():
                made = self.module(*(torch.from_numpy(feed[name].copy()) for name in self.inputs))
        except (RuntimeError, TypeError, ValueError, IndexError) as exc:
            raise Stopped(f"{self.name} does not run with the inputs {', '.join(self.inputs)}: {first_line(exc)}", found) from exc
        finally:
            for handle in handles:
                handle.remove()
        found |= {name: array(value) for name, value in by_name(made, self.outputs).items() if name in left}
        return found

    def bytes_of(self, name: str, feed: Mapping[str, Array]) -> int:
        """By the sizes that the maker of the runner knows."""
        return self.sizes.get(name, 1 << 20)


def of_graph(module: nn.Module, graph: Graph, side: Side) -> HookedRunner:
    """A module with a submodule for each layer under the layer's key, as generated source has them."""
    names = graph.value_names
    own = dict(module.named_modules())
    shown = {step.key: [names[top] for top in step.tops] for step in graph.steps if step.tops and step.key in own}
    runner = HookedRunner(module, graph.inputs, graph.outputs, shown, side)
    runner.sizes = bytes_by_shape({name: graph.values[value] for value, name in names.items()})
    return runner


# What they share ------------------------------------------------------------------------------------------------------


def placed(net: CaffeNet, device: str, precision: str) -> CaffeNet:
    """The net on a device in a number format: itself where it is there already, else a copy."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Unavailable("CUDA is not available: torch finds no GPU on this machine")
    if precision == "tf32" and not device.startswith("cuda"):
        raise Unavailable("TF32 is a format of CUDA's matrix units; on the CPU there is none")
    if device == "cpu" and precision == "float32":
        return net
    try:
        built = copy.deepcopy(net.built.module).to(device, DTYPES[precision])
    except (RuntimeError, ValueError) as exc:
        raise Unavailable(f"the net does not move to {device} in {precision}: {first_line(exc)}") from exc
    return CaffeNet(net.graph, type(net.built)(built, net.built.nodes))


@contextmanager
def running(module: nn.Module, device: str, precision: str, *, grad: bool = False) -> Iterator[None]:
    """Eval mode, and on a GPU the number format that was asked for: cuDNN would take TF32 by itself."""
    mode = evaluating(module) if any(m.training for m in module.modules()) else nullcontext()
    with mode, torch.set_grad_enabled(grad), _tf32(precision == "tf32") if device.startswith("cuda") else nullcontext():
        yield


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def by_name(made: Any, outputs: Sequence[str]) -> dict[str, Tensor]:
    """What a module returned, by blob name: a dict as it is, a tensor or a tuple in the order of `outputs`."""
    if isinstance(made, dict):
        return {str(name): value for name, value in made.items()}
    listed = made if isinstance(made, (tuple, list)) else (made,)
    return {name: value for name, value in zip(outputs, listed, strict=False) if isinstance(value, Tensor)}


def array(tensor: Tensor) -> Array:
    """The tensor's values on the CPU; what numpy has no format for as float32."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.cpu().numpy()
