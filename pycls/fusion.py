"""What runs faster in a train net when one looks at neighbours. The modules stay what they are, and hold the parameters; who calls them changes."""

from __future__ import annotations

from torch import Tensor, fx, nn

from converters.modules.eltwise import Sum
from converters.modules.linear import InnerProduct
from converters.modules.normalization import BatchNorm
from converters.modules.scale import Scale


class ScaledBatchNorm(nn.Module):
    """BatchNorm [N, C, ...] and the Scale behind it, of C factors, in one pass over the image."""

    def __init__(self, norm: BatchNorm, scale: Scale) -> None:
        super().__init__()
        self.norm, self.scale = norm, scale

    def forward(self, x: Tensor) -> Tensor:
        """As the two would."""
        return self.norm(x, self.scale.weight, self.scale.bias)  # type: ignore[no-any-return]


# Their results are new memory, which their own gradients do not look at again: a ReLU may overwrite it.
OVERWRITABLE = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.Linear, InnerProduct, BatchNorm, Scale, ScaledBatchNorm, Sum)


def fuse(module: fx.GraphModule) -> fx.GraphModule:
    """A Scale goes into the BatchNorm before it, and a ReLU writes over what only it reads; changes and returns `module`."""
    for node in list(module.graph.nodes):
        if node.op == "call_module" and len(node.args) == 1 and node.args[0].op == "call_module" and len(node.args[0].users) == 1:
            before, this = module.get_submodule(node.args[0].target), module.get_submodule(node.target)
            if isinstance(before, BatchNorm) and isinstance(this, Scale) and this.axis == 1 and this.weight.shape == before.mean.shape:
                maker, name = node.args[0], f"{node.args[0].target}_and_{node.target}"
                module.add_submodule(name, ScaledBatchNorm(before, this))
                node.target, node.args = name, maker.args
                module.graph.erase_node(maker)
            elif type(this) is nn.ReLU and isinstance(before, OVERWRITABLE):
                name = f"{node.target}_in_place"
                module.add_submodule(name, nn.ReLU(inplace=True))
                node.target = name
    module.recompile()
    return module
