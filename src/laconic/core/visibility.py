"""Which token may read which: one small predicate per method, compiled to every form a backbone takes.

A *rule* answers for a query and a key token, elementwise on tensors that broadcast::

    def own_step_only(q: Tokens, k: Tokens) -> Tensor:
        return (k.kind != Kind.TEXT) | (k.step == q.step)

The machinery adds what holds for every method: a token never reads a later one, nobody reads padding, and every token
(padding too) reads itself, so that no softmax is ever empty. From one rule and one ``Layout`` come the training mask,
the mask of a decode block against the keys still cached, and the keys that may be evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedModel

from laconic.core.compat import attention_mask_form, layer_windows
from laconic.core.layout import Kind, Layout


class Tokens(NamedTuple):
    """Queries or keys as a rule sees them: int64 tensors that broadcast against the other side's.

    ``row`` is the row of the batch (for rules with data of their own per row), ``column`` the place in the sequence.
    """

    row: Tensor
    column: Tensor
    kind: Tensor
    step: Tensor
    position: Tensor


#: ``rule(queries, keys) -> bool``. Only elementwise operators and indexing: FlexAttention calls it on scalars.
Rule = Callable[[Tokens, Tokens], Tensor]


def causal(q: Tokens, k: Tokens) -> Tensor:
    """Everything earlier: the plain decoder."""
    return k.column <= q.column


def isolated_groups(q: Tokens, k: Tokens) -> Tensor:
    """Group 0 (``step`` 0) is read by all; a query of group g > 0 reads group 0 and its own group only.

    Several questions can so share one memory in one forward pass.
    """
    return (k.step == 0) | (k.step == q.step)


def visible(rule: Rule, layout: Layout, queries: int | None = None, window: int | None = None) -> Tensor:
    """Who reads whom, dense.

    Args:
        rule: the method's predicate.
        layout: ``[B, K]``, all keys in order; the queries are the last of them.
        queries: how many of the last tokens are queries; all of them if left out (the training mask). A decode block
            is ``visible(rule, cache.announce(block), len(block))``.
        window: a sliding window: keys this many positions behind the query, or more, are hidden. Counted in position
            ids, the distance the backbone's own attention sees.

    Returns:
        bool ``[B, Q, K]``.
    """
    k = _tokens(layout)
    first = 0 if queries is None else len(layout) - queries
    q = Tokens(*(field[:, first:, None] for field in k))
    k = Tokens(*(field[:, None, :] for field in k))
    return _reads(rule, q, k, window)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """bool ``[B, Q, K]`` -> the 4D mask ``[B, 1, Q, K]`` that is added to attention scores (0 or the lowest value)."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1)


def block_mask(rule: Rule, layout: Layout, queries: int | None = None, window: int | None = None) -> BlockMask:
    """As ``visible``, for FlexAttention."""
    tokens = _tokens(layout)
    length = len(layout)
    count = length if queries is None else queries

    def mask_mod(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        q = Tokens(*(field[b, q_idx + (length - count)] for field in tokens))
        k = Tokens(*(field[b, kv_idx] for field in tokens))
        return _reads(rule, q, k, window)

    return create_block_mask(mask_mod, layout.kind.shape[0], None, count, length, device=str(layout.kind.device))


def attention_mask(
    model: PreTrainedModel, rule: Rule, layout: Layout, queries: int | None = None
) -> Tensor | BlockMask | dict[str, Tensor | BlockMask]:
    """What to give a backbone as ``attention_mask``: its own form, its own sliding windows honoured.

    Upstream applies a ready-made mask to all layers as it is, so a model with sliding layers would silently read
    beyond its window; models that mix layer types get one mask per type.

    Raises:
        BackboneError: the model's attention ignores masks (FlashAttention) or has layers of another nature.
    """
    form = attention_mask_form(model)

    def build(window: int | None) -> Tensor | BlockMask:
        if form == "block":
            return block_mask(rule, layout, queries, window)
        return additive(visible(rule, layout, queries, window), model.dtype)

    windows = layer_windows(model)
    if len(windows) == 1:
        return build(next(iter(windows.values())))
    return {layer_type: build(window) for layer_type, window in windows.items()}


def readable_by(rule: Rule, queries: Layout, keys: Layout) -> Tensor:
    """Which keys at least one of some *later* queries may read; the others can be evicted.

    Args:
        queries: ``[B, Q]``, tokens that may come. If a rule never shows again what it once hid, the kinds that can
            come in the current step stand for everything that follows.
        keys: ``[B, K]``, the tokens now in the cache.

    Returns:
        bool ``[B, K]``; padding is never readable. Sliding windows are left to the masks, as layers differ in them.
    """
    k = _tokens(keys)
    q = _tokens(queries)
    q = q._replace(column=q.column + len(keys))
    seen = rule(Tokens(*(field[:, :, None] for field in q)), Tokens(*(field[:, None, :] for field in k)))
    seen = seen & queries.real[:, :, None] & keys.real[:, None, :]
    return seen.any(dim=1)


def _tokens(layout: Layout) -> Tokens:
    rows, length = layout.kind.shape
    device = layout.kind.device
    row = torch.arange(rows, device=device)[:, None].expand(rows, length)
    column = torch.arange(length, device=device).expand(rows, length)
    return Tokens(row, column, layout.kind, layout.step, layout.position)


def _reads(rule: Rule, q: Tokens, k: Tokens, window: int | None) -> Tensor:
    seen = rule(q, k) & (k.kind != Kind.PAD)
    if window is not None:
        seen = seen & (k.position > q.position - window)
    return (k.column <= q.column) & (seen | (k.column == q.column))
