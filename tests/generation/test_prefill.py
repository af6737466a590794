"""Reading in pieces gives what reading in one pass gives, with padding, sliding windows and every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone
from transformers import DynamicCache

from laconic.backbone import Backbone
from laconic.generation import prefill as prefilling
from laconic.generation.prefill import prefill

LONG = "A grey owl sleeps above the mill, and bread is baked at dawn while the red fox runs home."


def batch(backbone: Backbone, padded: bool) -> dict[str, Any]:
    ids = backbone.token_ids(LONG)
    cut = 9 if padded else 0  # more than a piece of it: whole pieces of the second row are padding
    rows = torch.tensor([ids, [0] * cut + ids[cut:]])
    positions = torch.stack([torch.arange(len(ids)), (torch.arange(len(ids)) - cut).clamp(min=0)])
    mask = torch.stack([torch.ones(len(ids)), torch.arange(len(ids)) >= cut]).long() if padded else None
    return {"embedded": backbone.embed(rows), "position": positions, "mask": mask}


@pytest.mark.parametrize("windowed", [False, True], ids=["every key", "own windows"])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_pieces_are_one_pass(arch: str, padded: bool, windowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone(arch)
    prompt = batch(backbone, padded)

    def read(chunk: int) -> tuple[torch.Tensor, DynamicCache]:
        monkeypatch.setattr(prefilling, "PREFILL_CHUNK", chunk)
        cache = DynamicCache(config=backbone.model.config) if windowed else DynamicCache()
        with torch.no_grad():
            logits = prefill(backbone.model, cache=cache, **prompt).logits
            follow = backbone.model(  # what comes next sees the same past
                inputs_embeds=prompt["embedded"][:, :1],
                position_ids=prompt["position"][:, -1:] + 1,
                attention_mask=None
                if prompt["mask"] is None
                else torch.nn.functional.pad(prompt["mask"], (0, 1), value=1),
                past_key_values=cache,
            ).logits
        return torch.cat([logits, follow], dim=1), cache

    whole, kept = read(10_000)
    for chunk in (1, 4, 7):
        pieces, cache = read(chunk)
        torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-4)
        assert cache.get_seq_length() == kept.get_seq_length()
    assert whole.shape[1] == 2


def test_no_pass_is_longer_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    prompt = batch(backbone, padded=False)
    lengths: list[int] = []
    layer = backbone.model.get_submodule("model.layers.0.mlp")
    hook = layer.register_forward_hook(lambda module, args, out: lengths.append(out.shape[1]))
    monkeypatch.setattr(prefilling, "PREFILL_CHUNK", 8)
    with torch.no_grad():
        prefill(backbone.model, cache=DynamicCache(), **prompt)
    hook.remove()
    assert max(lengths) == 8
    assert sum(lengths) == prompt["embedded"].shape[1]
