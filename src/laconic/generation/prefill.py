"""Reading a prompt into a cache piece by piece.

One pass over a long prompt holds the activations of all its tokens at once; pieces hold those of a thousand.
"""

from __future__ import annotations

import torch
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

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
        end = begin + PREFILL_CHUNK
        out = model(
            inputs_embeds=embedded[:, begin:end],
            attention_mask=None if mask is None else mask[:, :end],
            position_ids=None if position is None else position[:, begin:end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    assert out is not None, "nothing to read"
    return out
