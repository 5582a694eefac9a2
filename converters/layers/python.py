"""Python layers. Their code lies beside the net and is never imported; the known ones have a rule in the file of
their family, registered by @python_layer under module and class name."""

from __future__ import annotations

from prototxt import NetError, UnsupportedLayer
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import Inputs, layer, python_rule


@layer("Python", bottoms=(0, None), tops=(0, None), differs="each class by a rule of its own")
def python(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe | Inputs:
    """Whatever the rule of its class says; UnsupportedLayer if there is none."""
    p = layer.spec.python_param
    rule = python_rule(p.module, p.layer)
    if rule is None:
        raise UnsupportedLayer(
            f"the Python layer {p.layer!r} of the module {p.module!r} is code beside the net, which Decant does not run; "
            "@python_layer gives a rule for it: docs/adding-a-layer.md"
        )
    made = rule(layer, shapes)
    if not isinstance(made, (Recipe, Inputs)):
        raise NetError(f"the rule of the Python layer {p.layer!r} must return a Recipe or Inputs")
    return made
