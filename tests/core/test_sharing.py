"""Twins over the same weights: nothing copied, nothing shared but parameters."""

from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone, tiny_model
from torch import nn

from laconic.core.sharing import first_layers, layer_list, shared_twin
from laconic.errors import LaconicError


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_twin_has_the_same_parameters_and_its_own_modules(arch: str) -> None:
    model = tiny_model(arch)
    twin = shared_twin(model)
    originals = dict(model.named_parameters())
    assert {name: id(p) for name, p in twin.named_parameters()} == {name: id(p) for name, p in originals.items()}
    assert not {id(module) for module in model.modules()} & {id(module) for module in twin.modules()}
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        layer_list(twin.base_model)[1][0] = nn.Identity()
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_first_layers_are_the_whole_model_cut_short(arch: str, depth: int) -> None:
    base = tiny_backbone(arch).base
    cut = first_layers(base, depth)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        whole = base(input_ids=ids, output_hidden_states=True)
        short = cut(input_ids=ids, output_hidden_states=True)
    # the last hidden state of a decoder is normed, so compare what enters its norm where there are layers beyond
    assert len(short.hidden_states) == depth + 1
    for index in range(depth):
        assert torch.equal(short.hidden_states[index], whole.hidden_states[index])
    if depth == 3:
        assert torch.equal(short.last_hidden_state, whole.last_hidden_state)
    owned = {id(p) for p in base.parameters()}
    assert all(id(p) in owned for p in cut.parameters())
    assert len(layer_list(base)[1]) == base.config.num_hidden_layers == 3
    assert cut.config.num_hidden_layers == depth


@pytest.mark.parametrize("depth", [0, 4])
def test_an_impossible_depth_is_refused(depth: int) -> None:
    with pytest.raises(LaconicError, match="1 to 3 layers"):
        first_layers(tiny_backbone().base, depth)


def test_a_module_without_decoder_layers_is_refused() -> None:
    base = tiny_backbone().base
    base.config.num_hidden_layers = 7
    with pytest.raises(LookupError, match="7 decoder layers"):
        layer_list(base)
