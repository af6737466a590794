"""Skimming: one query-weighted vector per segment (section 2.5)."""

from __future__ import annotations

import torch
from torch import nn

from laconic.backbone import Backbone
from laconic.core.sharing import layer_list, shared_twin
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.encoder import States


def skim_weights(segments: States, query: torch.Tensor, temperature: float) -> torch.Tensor:
    """Weights [S, L] of the tokens in each segment: softmax over real tokens of cos(token, query) / temperature.

    Args:
        query: the pooled query r_q [D].
    """
    cosines = nn.functional.cosine_similarity(segments.hidden.float(), query.float(), dim=-1)
    return (cosines / temperature).masked_fill(~segments.mask, float("-inf")).softmax(-1)


def skim_vectors(segments: States, query: torch.Tensor, temperature: float) -> torch.Tensor:
    """Skim vectors c_i = sum_j w_ij h_ij [S, D], in float32."""
    weights = skim_weights(segments, query, temperature)
    return torch.einsum("sl,sld->sd", weights, segments.hidden.float())


class Align(nn.Module):
    """Maps skim vectors into the decoder's embedding space; optionally lets them read each other first."""

    def __init__(self, backbone: Backbone, config: RAMConfig) -> None:
        super().__init__()
        width = backbone.width
        self.linear = nn.Linear(width, width)
        # identity, scaled so that an untrained skim vector has the size of an embedding row; the final norm is asked
        # for the size of its outputs, since families disagree on what its weight means
        final = [child for name, child in backbone.base.named_children() if "norm" in name or name.startswith("ln_")]
        noise = torch.randn(64, width, generator=torch.Generator().manual_seed(0)).to(backbone.device, backbone.dtype)
        with torch.no_grad():
            hidden_rms = (final[-1](noise) if final else noise).float().square().mean().sqrt()
        rows = backbone.embed(torch.arange(min(1024, backbone.model.config.vocab_size), device=backbone.device))
        embedding_rms = rows.detach().float().square().mean().sqrt()
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(width) * (embedding_rms / hidden_rms).cpu())
            self.linear.bias.zero_()
        self.fusion: nn.Module | None = None
        if config.fusion_layer:
            self.fusion = shared_twin(backbone.base)
            fresh = nn.ModuleList([_owned(shared_twin(backbone.layers[0]))])
            for name, child in backbone.base.named_children():
                if child is backbone.layers:
                    setattr(self.fusion, name, fresh)
            self.fusion.config.num_hidden_layers = 1  # type: ignore[union-attr]

    def forward(self, skims: torch.Tensor) -> torch.Tensor:
        """Aligned vectors [S, D'] for skim vectors [S, D] in document order."""
        if self.fusion is not None:
            dtype = next(layer_list(self.fusion)[1].parameters()).dtype  # not that of the embedding and norm it shares
            skims = self.fusion(inputs_embeds=skims.to(dtype)[None], use_cache=False).last_hidden_state[0]
        return self.linear(skims.to(self.linear.weight.dtype))


def _owned(layer: nn.Module) -> nn.Module:
    for module in layer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().float().clone()))
    return layer
