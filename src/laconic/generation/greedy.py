"""Greedy decoding from embeddings: batched, left-padded, explicit positions.

``generate`` of transformers takes embeddings too, but it derives positions from a mask and knows nothing of documents
that were read before. Shapes: B rows, T tokens of the longest prompt, P tokens already in the cache, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import Cache, DynamicCache, PreTrainedModel


@torch.inference_mode()
def greedy_decode(
    model: PreTrainedModel,
    rows: Sequence[torch.Tensor],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    cache: Cache | None = None,
    next_position: int = 0,
    on_prefilled: Callable[[], None] = lambda: None,
    on_token: Callable[[int, int], None] = lambda row, token: None,
) -> list[list[int]]:
    """Continue each row greedily until a stop token or ``max_new_tokens``.

    Args:
        rows: prompts as embeddings, each [T_b, D].
        stop_ids: tokens that end a row; they are not part of the result.
        cache: keys and values of a text already read; only for a single row. It is extended in place.
        next_position: position of the first prompt token.
        on_prefilled: called when the prompt has been read.
        on_token: called with (row, token) for every token kept.

    Returns:
        New token ids per row.
    """
    if cache is not None and len(rows) != 1:
        raise ValueError("a document that was read before continues with one row")
    device = rows[0].device
    longest = max(len(row) for row in rows)
    padding = torch.tensor([longest - len(row) for row in rows], device=device)
    embedded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    positions = (torch.arange(longest, device=device) - padding[:, None]).clamp(min=0) + next_position
    # without padding a plain causal pass needs no mask, and a mask would cost SDPA its fast path
    padded = bool(padding.any())
    mask = (torch.arange(longest, device=device) >= padding[:, None]).long() if padded else None
    if cache is None:
        cache = DynamicCache(config=model.config)
    produced: list[list[int]] = [[] for _ in rows]
    live = [max_new_tokens > 0] * len(rows)
    out = model(
        inputs_embeds=embedded,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    on_prefilled()
    position = positions[:, -1:]
    for _ in range(max_new_tokens):
        tokens = out.logits[:, -1].argmax(-1)
        for row, token in enumerate(tokens.tolist()):
            if not live[row]:
                continue
            if token in stop_ids:
                live[row] = False
                continue
            produced[row].append(token)
            on_token(row, token)
            live[row] = len(produced[row]) < max_new_tokens
        if not any(live):
            break
        position = position + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        out = model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
    return produced
