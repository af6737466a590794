"""The preallocated cache holds what a dynamic one holds, whatever is done to it, and copies only when it must."""

from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from laconic.core.preallocated import PreallocatedLayer, preallocated_cache


def piece(tokens: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 3, tokens, 4), torch.randn(batch, 3, tokens, 6)  # values may have another width


def same(ours: DynamicLayer, theirs: DynamicLayer) -> None:
    assert ours.get_seq_length() == theirs.get_seq_length()
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("room", [1, 7, 40])
def test_it_holds_what_a_dynamic_layer_holds_through_everything(room: int) -> None:
    ours, theirs = PreallocatedLayer(room), DynamicLayer()

    def grow(tokens: int, batch: int = 2) -> None:
        keys, values = piece(tokens, batch)
        for got, expected in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(got, expected)
        same(ours, theirs)

    def both(name: str, *args: object) -> None:
        for layer in (ours, theirs):
            getattr(layer, name)(*args)
        if theirs.is_initialized:
            same(ours, theirs)

    torch.manual_seed(0)
    grow(5)
    grow(1)
    both("crop", -3)
    grow(4)
    both("crop", -7)
    assert ours.get_seq_length() == 0
    grow(3)
    both("reorder_cache", torch.tensor([1, 0]))
    grow(2)
    both("batch_repeat_interleave", 2)
    grow(1, batch=4)
    both("batch_select_indices", torch.tensor([2, 1]))
    grow(6)
    ours.reset()
    theirs = DynamicLayer()  # transformers 5.16 does not empty a layer that is reset
    grow(4)


@pytest.mark.parametrize("emptied", ["reset", "crop"])
def test_an_emptied_layer_serves_a_batch_of_another_size(emptied: str) -> None:
    layer = PreallocatedLayer(20)
    layer.update(*piece(4, batch=2))
    if emptied == "reset":
        layer.reset()
        assert not layer._room, "the room is given back"
    else:
        layer.crop(-4)
    keys, values = piece(3, batch=1)
    for got, expected in zip(layer.update(keys, values), (keys, values), strict=True):
        assert torch.equal(got, expected)


def test_what_fits_its_room_is_never_moved() -> None:
    layer = PreallocatedLayer(20)
    places = {layer.update(*piece(tokens))[0].data_ptr() for tokens in (8, 1, 1, 4, 6)}
    assert len(places) == 1
    assert layer.update(*piece(1))[0].data_ptr() not in places
    place = layer.keys.data_ptr()
    for _ in range(4):  # room for a quarter more was taken at once
        assert layer.update(*piece(1))[0].data_ptr() == place


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_models_read_on_it_as_on_a_dynamic_one(arch: str) -> None:
    backbone = tiny_backbone(arch)
    ids = torch.tensor([backbone.token_ids("The red fox lives in the old barn above the mill.")])

    def logits(cache: Cache) -> torch.Tensor:
        with torch.no_grad():
            pieces = [backbone.model(input_ids=some, past_key_values=cache).logits for some in ids.split(5, dim=1)]
        return torch.cat(pieces, dim=1)

    config = backbone.model.config
    assert torch.equal(logits(preallocated_cache(9)), logits(DynamicCache()))
    windowed = preallocated_cache(9, config)
    assert torch.equal(logits(windowed), logits(DynamicCache(config=config)))
    kinds = [type(layer) for layer in DynamicCache(config=config).layers]
    assert [type(layer) for layer in windowed.layers] == [PreallocatedLayer if k is DynamicLayer else k for k in kinds]
