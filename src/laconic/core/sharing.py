"""A second body over the same weights.

A method may need a truncated or adapted twin of the backbone (RAM's encoder, a LoRA decoder). Copying the weights would
double memory, patching the backbone would change it for everybody else. These twins have modules of their own and the
backbone's parameters by reference.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from transformers import PreTrainedModel

from laconic.errors import LaconicError

Body = TypeVar("Body", bound=nn.Module)


def shared_twin(module: Body) -> Body:
    """Copy ``module`` without copying a parameter: new modules and buffers, the same ``Parameter`` objects."""
    return copy.deepcopy(module, {id(p): p for p in module.parameters()})


def unshared(twin: Body) -> Body:
    """Give a twin parameters of its own, in place; those that were one stay one (tied embeddings). Returns it."""
    own: dict[int, nn.Parameter] = {}
    for module in twin.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in own:
                own[id(parameter)] = nn.Parameter(parameter.detach().clone())
            setattr(module, name, own[id(parameter)])
    return twin


def first_layers(base: PreTrainedModel, depth: int) -> PreTrainedModel:
    """The first ``depth`` decoder layers of a headless decoder, with its embedding and final norm, sharing weights.

    Args:
        base: a decoder without its vocabulary head (``Backbone.base``).
        depth: layers to keep, 1 <= depth <= the number it has.
    """
    name, layers = layer_list(base)
    if not 1 <= depth <= len(layers):
        raise LaconicError(
            f"{depth} layers were asked of a decoder with {len(layers)}.", f"Ask for 1 to {len(layers)} layers."
        )
    shared: dict[int, object] = {id(p): p for p in base.parameters()}
    # the layers beyond `depth` never enter the copy
    shared[id(layers)] = nn.ModuleList(copy.deepcopy(layer, dict(shared)) for layer in list(layers)[:depth])
    twin = copy.deepcopy(base, shared)
    assert getattr(twin, name) is shared[id(layers)]
    twin.config.num_hidden_layers = depth
    if getattr(twin.config, "layer_types", None):
        twin.config.layer_types = list(twin.config.layer_types)[:depth]
    return twin


def layer_list(base: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The attribute name and the list of decoder layers of a headless decoder.

    Raises:
        LookupError: no direct child is a module list as long as the configuration says.
    """
    depth = getattr(base.config, "num_hidden_layers", None)
    for name, child in base.named_children():
        if isinstance(child, nn.ModuleList) and len(child) == depth:
            return name, child
    raise LookupError(f"{type(base).__name__} has no list of {depth} decoder layers")
