"""Greedy decoding from embeddings: batched, left-padded, explicit positions.

``generate`` of transformers takes embeddings too, but it derives positions from a mask and knows nothing of documents
that were read before. Shapes: B rows, T tokens of the longest prompt, P tokens already in the cache, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import Cache, PreTrainedModel

from laconic.core.preallocated import preallocated_cache
from laconic.core.results import Stopwatch
from laconic.generation.prefill import mask_for, prefill


class Continuation(NamedTuple):
    """New tokens of a row, and what the cache held of it at the most: in its longest layer, and in bytes over all."""

    ids: list[int]
    peak_cache_tokens: int
    peak_cache_bytes: int


@torch.inference_mode()
def greedy_decode(
    model: PreTrainedModel,
    rows: Sequence[torch.Tensor],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    cache: Cache | None = None,
    next_position: int = 0,
    ends: Callable[[int], bool] = lambda token: False,
    watch: Stopwatch | None = None,
    on_token: Callable[[int, int], None] = lambda row, token: None,
) -> list[Continuation]:
    """Continue each row greedily until a stop token or ``max_new_tokens``.

    Args:
        rows: prompts as embeddings, each [T_b, D].
        stop_ids: tokens that end a row; they are not part of the result.
        cache: keys and values of a text already read; only for a single row. It is extended in place.
        next_position: position of the first prompt token.
        ends: whether a token is the last of its row; unlike a stop token it is part of the result.
        watch: gets the seconds of ``prefill`` and ``decode``.
        on_token: called with (row, token) for every token kept.
    """
    if cache is not None and len(rows) != 1:
        raise ValueError("a document that was read before continues with one row")
    device = rows[0].device
    watch = watch or Stopwatch(device)
    longest = max(len(row) for row in rows)
    padding = torch.tensor([longest - len(row) for row in rows], device=device)
    embedded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    positions = (torch.arange(longest, device=device) - padding[:, None]).clamp(min=0) + next_position
    # without padding a plain causal pass needs no mask, and a mask would cost SDPA its fast path
    padded = bool(padding.any())
    mask = (torch.arange(longest, device=device) >= padding[:, None]).long() if padded else None
    if cache is None:
        cache = preallocated_cache(longest + max_new_tokens, model.config)
    cached = _longest_layer(cache)
    held = [cached + len(row) for row in rows]
    with watch("prefill"):
        out = prefill(model, embedded, cache, position=positions, mask=mask)
    position = positions[:, -1:]

    def advance(tokens: torch.Tensor, live: Sequence[bool]) -> torch.Tensor:
        nonlocal held, position, mask
        held = [tokens_held + alive for tokens_held, alive in zip(held, live, strict=True)]
        position = position + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        out = model(
            input_ids=tokens[:, None],
            attention_mask=mask_for(model, cache, position, mask),
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
        return out.logits[:, -1]

    with watch("decode"):
        produced = continue_one_by_one(
            out.logits[:, -1], advance, max_new_tokens=max_new_tokens, stop_ids=stop_ids, ends=ends, on_token=on_token
        )
    return [Continuation(ids, *_bill(cache, len(rows), tokens)) for ids, tokens in zip(produced, held, strict=True)]


def best(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row, [B]."""
    return logits.argmax(-1)


def continue_one_by_one(
    logits: torch.Tensor,
    advance: Callable[[torch.Tensor, Sequence[bool]], torch.Tensor],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int] = frozenset(),
    ends: Callable[[int], bool] = lambda token: False,
    on_token: Callable[[int, int], None] = lambda row, token: None,
    choose: Callable[[torch.Tensor], torch.Tensor] = best,
) -> list[list[int]]:
    """A token, again and again, until every row has stopped; rows that stopped are fed what does not matter.

    Args:
        logits: behind the prompts, [B, V].
        advance: takes the new token of each row [B] and which rows go on, gives the logits behind them [B, V].
        stop_ids, ends, on_token: as for ``greedy_decode``.
        choose: from logits, the new token of each row.

    Returns:
        New tokens of each row.
    """
    produced: list[list[int]] = [[] for _ in range(len(logits))]
    live = [max_new_tokens > 0] * len(produced)
    for _ in range(max_new_tokens):
        tokens = choose(logits)
        for row, token in enumerate(tokens.tolist()):
            if not live[row]:
                continue
            if token in stop_ids:
                live[row] = False
                continue
            produced[row].append(token)
            on_token(row, token)
            live[row] = len(produced[row]) < max_new_tokens and not ends(token)
        if not any(live):
            break
        logits = advance(tokens, live)
    return produced


def _longest_layer(cache: Cache) -> int:
    return max((layer.keys.shape[-2] for layer in cache.layers if layer.is_initialized), default=0)


def _bill(cache: Cache, batch: int, tokens: int) -> tuple[int, int]:
    """What a row of so many tokens takes: longest layer, bytes of all layers. Padding is not billed to it."""
    longest = size = 0
    for layer in cache.layers:
        if not layer.is_initialized:  # layers may share the keys of another
            continue
        stored = layer.keys.shape[-2]
        used = min(tokens, stored)  # a sliding layer stores no more than its window
        longest = max(longest, used)
        size += used * ((layer.keys.nbytes + layer.values.nbytes) // (stored * batch))
    return longest, size
