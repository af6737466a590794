"""Attention sinks and a recent window: the streaming baseline (StreamingLLM, arXiv 2309.17453).

The document is read once; every token attends to the first few tokens (the sinks) and to the most recent ones, and
only their keys and values stay in the cache. Memory is constant, and what left the window is gone but for what
later tokens took up from it.

StreamingLLM counts positions inside the cache, to run beyond the backbone's window. Here tokens keep the positions
they have in the document as long as it fits the window with room for a question: keys need no re-rotation (which
learned positions like GPT-2's do not even have). Beyond it, what is kept closes up behind the sinks after every piece,
its keys turned anew, and text of any length can be read. A question continues at ``next_position`` in either case.
"""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.backbone import Backbone
from laconic.core.cache import EvictingCache
from laconic.core.layers import LayerStack
from laconic.core.layout import Kind, run
from laconic.core.positions import sequential
from laconic.core.results import Compressed, Span, Stopwatch
from laconic.core.segments import require_text, resolve_budget
from laconic.core.visibility import Rule, Tokens, attention_mask
from laconic.errors import BackboneError, BudgetError
from laconic.generation.answer import ROOM

# tokens per forward pass; the result does not depend on it, the largest mask and the peak of the cache do
READ_TOKENS = 256
# tokens kept from the beginning (StreamingLLM: four do)
SINK_TOKENS = 4


def sinks_and_recent(sinks: int, recent: int) -> Rule:
    """A query reads the first ``sinks`` positions and the last ``recent``, its own included."""

    def rule(q: Tokens, k: Tokens) -> Tensor:
        return (k.position < sinks) | (k.position > q.position - recent)

    return rule


class SinkWindow:
    """Keeps the keys and values of the first ``sink_tokens`` tokens and of the most recent ones.

    Args:
        backbone: reads the document, and must be the one that answers.
        sink_tokens: tokens kept from the beginning.
    """

    query_aware = False

    def __init__(self, backbone: Backbone, sink_tokens: int = SINK_TOKENS) -> None:
        self.backbone = backbone
        self.sink_tokens = sink_tokens

    @torch.inference_mode()
    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Read ``context``; the payload is a cache of at most ``budget`` tokens. The query is not used.

        Raises:
            DocumentError: the context is empty.
            BudgetError: no budget is left beside the sinks, or the document exceeds the backbone's window and the
                budget leaves no room in it, or keys of the backbone cannot be moved.
        """
        require_text(context)
        watch = Stopwatch(self.backbone.device)
        with watch("read"):
            encoded = self.backbone.tokenizer(
                context, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
            length = len(ids)
            allowed, requested = resolve_budget(length, ratio, budget)
            recent = self._recent(length, allowed)
            stack = self._movable() if self._closes_up(length, allowed) else None
            cache = self._read(torch.tensor([ids], device=self.backbone.device), recent, stack)
        kept = cache.physical_length
        if kept == length:
            evidence = [Span(0, len(context), context)]
        else:
            head, tail = offsets[self.sink_tokens][0], offsets[length - recent][0]
            spans = [(0, head), (tail, len(context))]
            evidence = [Span(start, end, context[start:end]) for start, end in spans if start < end]
        return Compressed(
            document_tokens=length,
            context_tokens=kept,
            requested_ratio=requested,
            cache=cache,
            next_position=length if stack is None else kept,
            evidence=evidence,
            seconds=watch.seconds,
        )

    def _recent(self, length: int, allowed: int) -> int:
        """Tokens of the budget left for the recent window."""
        window = self.backbone.window
        if length > window and self._movable() is None:
            raise BudgetError(
                f"The document has {length} tokens, more than the window of {window} of {self.backbone.name}, whose "
                "positions cannot be moved.",
                "Use a backbone with plain rotary positions, or a shorter document.",
            )
        if length > window and not self._has_room(allowed):
            raise BudgetError(
                f"A window of {window} tokens ({self.backbone.name}) has no room for {allowed} tokens, the next "
                f"{READ_TOKENS} and a question.",
                "Ask for a smaller budget, or a larger --factor.",
            )
        recent = allowed - self.sink_tokens
        if recent < 1 and allowed < length:
            raise BudgetError(
                f"A budget of {allowed} tokens leaves none beside the {self.sink_tokens} sink tokens.",
                f"Allow at least {self.sink_tokens + 1} tokens.",
            )
        # a document within the budget is kept whole
        return recent if allowed < length else length

    def _closes_up(self, length: int, allowed: int) -> bool:
        return length + ROOM > self.backbone.window and allowed < length and self._has_room(allowed)

    def _has_room(self, allowed: int) -> bool:
        return allowed + READ_TOKENS + ROOM <= self.backbone.window

    def _movable(self) -> LayerStack | None:
        """The backbone's layers, if their keys can be moved to other positions."""
        try:
            stack = LayerStack(self.backbone.model)
        except BackboneError:
            return None
        return stack if stack.shifts else None

    def _read(self, ids: Tensor, recent: int, stack: LayerStack | None) -> EvictingCache:
        """Feed ``ids`` ``[1, T]`` piece by piece, forgetting what no later token may read.

        Args:
            stack: moves what is kept up to the sinks; None leaves it where it is.
        """
        base = self.backbone.base
        cache = EvictingCache(self.backbone.model)
        rule = sinks_and_recent(self.sink_tokens, recent)
        begin = 0
        for piece in ids.split(READ_TOKENS, dim=1):
            position = sequential(begin, piece.shape[1]).to(ids.device)
            keys = cache.announce(run(Kind.TEXT, position).map(lambda field: field[None]))
            mask = attention_mask(self.backbone.model, rule, keys, piece.shape[1])
            base(piece, attention_mask=mask, position_ids=position[None], past_key_values=cache, use_cache=True)
            begin += piece.shape[1]
            cache.keep((keys.position < self.sink_tokens) | (keys.position >= begin - recent))
            if stack is not None and begin > cache.physical_length:
                cache.shift(stack, self.sink_tokens, cache.physical_length - begin)
                begin = cache.physical_length
        return cache
