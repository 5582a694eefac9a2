"""Write the Residual Attention Networks: `python scripts/attention.py` makes prototxt/nets/attention56.prototxt and attention92.prototxt.

Layers are named as the modules of pycls/models/attention.py, with `/` for `.`; a BatchNorm's Scale ends in `scale` where it ends in `bn`.
"""

from __future__ import annotations

from pathlib import Path

NETS = Path(__file__).resolve().parents[1] / "prototxt/nets"
LAST = 0.25
HEAD = """# Attention-{depth} (Wang et al. 2017), wired as the authors' own, with BVLC's BatchNorm and Scale for their BN and the mean over any size
# at the end. {parameters} learned parameters. Interp, of the DeepLab fork, takes its size from the second bottom. A unit begins near the
# identity and a mask near 1/2 (their last scale is 0.25), or untrained depth would amplify rounding. Input: BGR 224 x 224.
# Made by scripts/attention.py.
name: "Attention-{depth}"

layer {{
  name: "data"
  type: "Input"
  top: "data"
  input_param {{ shape {{ dim: 1 dim: 3 dim: 224 dim: 224 }} }}
}}
"""


class Writer:
    """Layers as text; each method adds its layers and gives the name of its top."""

    def __init__(self) -> None:
        self.layers: list[str] = []

    def layer(self, name: str, type: str, *bottoms: str, top: str = "", params: str = "") -> str:
        """One layer; its top is its name where none is given."""
        lines = [f'name: "{name}"', f'type: "{type}"', *(f'bottom: "{b}"' for b in bottoms), f'top: "{top or name}"']
        self.layers.append("\n".join(["layer {", *(f"  {line}" for line in lines + params.splitlines()), "}"]))
        return top or name

    def conv(self, name: str, bottom: str, outputs: int, kernel: int = 1, stride: int = 1) -> str:
        """A convolution without bias that keeps the size up to its stride."""
        shape = f"num_output: {outputs} kernel_size: {kernel}"
        shape += f" stride: {stride}" * (stride > 1) + f" pad: {kernel // 2}" * (kernel > 1)
        filler = 'weight_filler { type: "msra" }'
        return self.layer(name, "Convolution", bottom, params=f"convolution_param {{\n  {shape} bias_term: false\n  {filler}\n}}")

    def ready(self, name: str, bottom: str, scale: float = 1) -> str:
        """BatchNorm, Scale and ReLU onto a blob of their own: the one they read goes on as it is."""
        top = self.layer(name, "BatchNorm", bottom, params="batch_norm_param { moving_average_fraction: 0.9 eps: 1e-05 }")
        self.layer(
            name.replace("bn", "scale"),
            "Scale",
            top,
            top=top,
            params="scale_param { " + f"filler {{ value: {scale} }} " * (scale != 1) + "bias_term: true }",
        )
        return self.layer(name.replace("bn", "relu"), "ReLU", top, top=top)

    def pool(self, name: str, bottom: str) -> str:
        """The maximum of 3 x 3 by 2."""
        return self.layer(name, "Pooling", bottom, params="pooling_param { pool: MAX kernel_size: 3 stride: 2 }")

    def eltwise(self, name: str, operation: str, *bottoms: str) -> str:
        """SUM or PROD."""
        return self.layer(name, "Eltwise", *bottoms, params=f"eltwise_param {{ operation: {operation} }}")

    def unit(self, name: str, bottom: str, width: int, *, stride: int = 1, project: bool = False) -> str:
        """A pre-activated bottleneck."""
        ready = self.ready(f"{name}/bn1", bottom)
        x = self.conv(f"{name}/conv1", ready, width)
        x = self.conv(f"{name}/conv2", self.ready(f"{name}/bn2", x), width, 3, stride)
        x = self.conv(f"{name}/conv3", self.ready(f"{name}/bn3", x, LAST), 4 * width)
        return self.eltwise(name, "SUM", x, self.conv(f"{name}/projection", ready, 4 * width, 1, stride) if project else bottom)

    def mask(self, name: str, bottom: str, width: int, poolings: int) -> str:
        """Down by `poolings`, up again with skips, and a sigmoid."""
        levels, x = [], bottom
        for n in range(poolings):
            x = self.unit(f"{name}/down/{n}", self.pool(f"{name}/pool{n}", x), width)
            levels.append(x)
        x = self.unit(f"{name}/bottom", x, width)
        for n in reversed(range(poolings - 1)):
            wide = self.layer(f"{name}/interp{n + 1}", "Interp", x, levels[n])
            joined = self.eltwise(f"{name}/joined{n}", "SUM", wide, self.unit(f"{name}/skip/{n}", levels[n], width))
            x = self.unit(f"{name}/up/{n}", joined, width)
        x = self.layer(f"{name}/interp0", "Interp", x, bottom)
        x = self.conv(f"{name}/conv1", self.ready(f"{name}/bn1", x), 4 * width)
        x = self.conv(f"{name}/conv2", self.ready(f"{name}/bn2", x, LAST), 4 * width)
        return self.layer(name, "Sigmoid", x)

    def module(self, name: str, bottom: str, width: int, poolings: int) -> str:
        """A unit, trunk and mask, their fusion, a unit."""
        x = self.unit(f"{name}/first", bottom, width)
        trunk = self.unit(f"{name}/trunk/1", self.unit(f"{name}/trunk/0", x, width), width)
        weighed = self.eltwise(f"{name}/weighed", "PROD", self.mask(f"{name}/mask", x, width, poolings), trunk)
        return self.unit(f"{name}/last", self.eltwise(f"{name}/fused", "SUM", weighed, trunk), width)


def net(depth: int, parameters: str, modules: tuple[int, ...]) -> str:
    """The whole file."""
    w = Writer()
    x = w.pool("pool", w.ready("bn1", w.conv("conv1", "data", 64, 7, 2)))
    for n, count in enumerate(modules):
        x = w.unit(f"stages/{n}/0", x, 64 << n, stride=1 if n == 0 else 2, project=True)
        for m in range(count):
            x = w.module(f"stages/{n}/{m + 1}", x, 64 << n, 3 - n)
    for n in range(3):
        x = w.unit(f"tail/{n}", x, 512, stride=1 if n else 2, project=n == 0)
    x = w.layer("mean", "Pooling", w.ready("bn", x), params="pooling_param { pool: AVE global_pooling: true }")
    x = w.layer("classifier", "InnerProduct", x, params='inner_product_param {\n  num_output: 1000\n  weight_filler { type: "xavier" }\n}')
    w.layer("prob", "Softmax", x)
    return HEAD.format(depth=depth, parameters=parameters) + "\n".join(w.layers) + "\n"


def main() -> None:
    (NETS / "attention56.prototxt").write_text(net(56, "31,810,728", (1, 1, 1)))
    (NETS / "attention92.prototxt").write_text(net(92, "52,466,344", (1, 2, 3)))


if __name__ == "__main__":
    main()
