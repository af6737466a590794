"""LoRA beside weights of any precision."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny import ARCHITECTURES, tiny_model
from torch import Tensor

from laconic.core.lora import ADAPTER, add_lora, merge_lora
from laconic.core.sharing import shared_twin


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_computed_as_the_weights_are_and_updated_in_float32(arch: str, dtype: torch.dtype) -> None:
    model = shared_twin(tiny_model(arch).to(dtype))
    add_lora(model, rank=4, alpha=8)
    made: set[torch.dtype] = set()
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    torch.manual_seed(0)
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B[ADAPTER].weight, std=0.1)
        for factor in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]):
            factor.register_forward_hook(lambda _module, _given, out: made.add(out.dtype))
    ids = torch.arange(20)[None]
    logits = model(input_ids=ids).logits
    logits.float().square().sum().backward()
    assert made == {dtype}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(layers) > 0
    assert all("lora_" in name for name in trained)
    for parameter in trained.values():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.any()
    merge_lora(model)
    with torch.no_grad():
        merged = model(input_ids=ids).logits
        plain = tiny_model(arch).to(dtype)(input_ids=ids).logits
    assert apart(logits, merged) < (1e-4 if dtype == torch.float32 else 0.05)
    assert apart(plain, merged) > 0.2


def apart(one: Tensor, other: Tensor) -> float:
    return float(((one.float() - other.float()).norm() / other.float().norm()).detach())
