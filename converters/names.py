"""Caffe's names <-> names that Python takes: of submodules, of arguments, of variables.

The mapping is one-to-one within a net and stands as a table in the graph, so it can be read both ways. `a` and `a_` stay apart,
keywords and attributes of GraphModule are avoided, and no name can carry code.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

# Attributes of torch.fx.GraphModule and nn.Module, and what generated source uses; a test holds the list against torch.
RESERVED = frozenset(
    [
        "F",
        "T_destination",
        "add_module",
        "add_submodule",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "code",
        "compile",
        "cpu",
        "cuda",
        "delete_all_unused_submodules",
        "delete_submodule",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "graph",
        "half",
        "ipu",
        "load_state_dict",
        "math",
        "meta",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "nn",
        "parameters",
        "print_readable",
        "recompile",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "self",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "shape_env",
        "state_dict",
        "to",
        "to_empty",
        "to_folder",
        "torch",
        "train",
        "training",
        "type",
        "xpu",
        "zero_grad",
    ]
)


def identifiers(names: Iterable[str], *, prefix: str, taken: Iterable[str] = ()) -> tuple[str, ...]:
    """One identifier for each name, all different, in order: equal names get different ones.

    A name that is an identifier already and not taken stays as it is; the others change in the least way, and give way to it.
    """
    names = list(names)
    used = set(taken)
    result: list[str | None] = []
    for name in names:
        plain = _is_free(name, used)
        result.append(name if plain else None)
        if plain:
            used.add(name)
    for i, name in enumerate(names):
        if result[i] is None:
            base = candidate = _identifier(name, prefix)
            n = 2
            while not _is_free(candidate, used):
                candidate = f"{base}_{n}"
                n += 1
            used.add(candidate)
            result[i] = candidate
    return tuple(name for name in result if name is not None)


def _is_free(name: str, used: set[str]) -> bool:
    return (
        name.isidentifier()
        and name.isascii()
        and not name.startswith("_")
        and not keyword.iskeyword(name)
        and not keyword.issoftkeyword(name)
        and name not in RESERVED
        and name not in used
    )


def _identifier(name: str, prefix: str) -> str:
    ascii_name = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:100]
    if not ascii_name or ascii_name[0].isdigit():
        ascii_name = f"{prefix}_{ascii_name}".rstrip("_")
    return ascii_name
