"""Reading a prompt into a cache piece by piece.

One pass over a long prompt holds the activations of all its tokens at once; pieces hold those of a thousand.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from laconic.core.cache import EvictingCache
from laconic.core.compat import layer_windows
from laconic.core.layout import Kind, run
from laconic.core.visibility import attention_mask, causal

PREFILL_CHUNK = 1024


def prefill(
    model: PreTrainedModel,
    embedded: torch.Tensor,
    cache: Cache,
    *,
    position: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> CausalLMOutputWithPast:
    """Extend ``cache`` by these embeddings; returns the output of the last piece, with logits of its last token.

    Args:
        embedded: [B, T, D], T > 0.
        position: position of each token, [B, T]; None where they count on from the cache.
        mask: True or 1 on real tokens, [B, T], for a batch with padding and an empty cache; None where nothing is
            padded, so that the first piece needs no mask and stays on SDPA's fast path.
    """
    out = None
    for begin in range(0, embedded.shape[1], PREFILL_CHUNK):
        piece = embedded[:, begin : begin + PREFILL_CHUNK]
        end = begin + piece.shape[1]
        where = None if position is None else position[:, begin:end]
        out = model(
            inputs_embeds=piece,
            attention_mask=mask_for(model, cache, where, None if mask is None else mask[:, :end]),
            position_ids=where,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    assert out is not None, "nothing to read"
    return out


def mask_for(
    model: PreTrainedModel, cache: Cache, position: torch.Tensor | None, mask: torch.Tensor | None
) -> Tensor | BlockMask | dict[str, Tensor | BlockMask] | None:
    """What the next block is to be given as its mask: ``mask``, unless keys were evicted and layers have a window.

    Upstream counts a sliding window over the places of the cache; behind an evicted key those are not the positions.

    Args:
        position: of the block's tokens, [1, T].
    """
    if not isinstance(cache, EvictingCache) or not any(layer_windows(model).values()):
        return mask
    assert position is not None, "behind evicted keys only positions tell where a token stands"
    return attention_mask(model, causal, cache.announce(run(Kind.TEXT, position)), position.shape[1])
