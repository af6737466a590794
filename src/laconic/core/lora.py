"""LoRA on a twin of the backbone, by PEFT, and folded into the weights again for inference."""

from __future__ import annotations

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

ADAPTER = "laconic"


def add_lora(body: PreTrainedModel, rank: int, alpha: int) -> None:
    """Put LoRA on every linear layer inside the layers of ``body``, in place, and freeze the rest of it.

    ``body`` must be a twin (``core.sharing``): the modules change, the backbone's parameters do not. The adapters'
    own parameters are float32, whatever the weights are in: they are what the optimiser updates. They multiply in the
    precision of what comes in, as the weights beside them do.
    """
    body.requires_grad_(False)
    inside = {id(module) for module in _layers(body).modules()}
    linear = {
        name: type(module)
        for name, module in body.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear | Conv1D)
    }
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=sorted(linear),
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=Conv1D in linear.values(),  # GPT-2 keeps its weights the other way round
    )
    inject_adapter_in_model(config, body, adapter_name=ADAPTER)
    for module in body.modules():
        if isinstance(module, LoraLayer):
            # PEFT's own way, float32 activations for float32 parameters, is a fifth of a training step in bfloat16
            module.cast_input_dtype_enabled = False
            module.lora_A[ADAPTER] = _Factor(module.lora_A[ADAPTER])
            module.lora_B[ADAPTER] = _Factor(module.lora_B[ADAPTER])


class _Factor(nn.Linear):
    """One of LoRA's two matrices: float32, and rounded to the precision of what it is multiplied with."""

    def __init__(self, made: nn.Linear) -> None:
        super().__init__(made.in_features, made.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(made.weight.detach().float())

    def forward(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.weight.to(states.dtype))


def _layers(body: PreTrainedModel) -> nn.ModuleList:
    """The list of layers, which an encoder has one level deeper than a decoder.

    Raises:
        LookupError: no module list is as long as the configuration says.
    """
    depth = body.config.num_hidden_layers
    for module in body.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise LookupError(f"{type(body).__name__} has no list of {depth} layers")


def merge_lora(body: nn.Module) -> None:
    """Fold the adapters of ``body`` into weights of its own, in place; each linear layer is a plain one again.

    The backbone's tensors are left as they are: PEFT's own merge writes into them, and they are shared.
    """
    for name, module in list(body.named_modules()):
        if not isinstance(module, LoraLayer):
            continue
        layer = module.get_base_layer()
        assert isinstance(layer, nn.Linear | Conv1D)
        delta = module.get_delta_weight(ADAPTER).to(torch.float32)
        merged = (layer.weight.float() + delta).to(layer.weight.dtype)
        layer.weight = nn.Parameter(merged, requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(body.get_submodule(parent), child, layer)
