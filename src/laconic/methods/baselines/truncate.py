"""Truncation: keep the beginning, the end, or both ends of a document."""

from __future__ import annotations

from typing import Literal

from laconic.backbone import Backbone
from laconic.core.results import Compressed, Span
from laconic.core.segments import require_text, resolve_budget
from laconic.errors import BudgetError

GAP = "\n"


class Truncate:
    """Keeps the first tokens (``head``), the last (``tail``), or half of the budget at each end (``middle``)."""

    query_aware = False

    def __init__(self, backbone: Backbone, keep: Literal["head", "tail", "middle"] = "head") -> None:
        self.backbone, self.keep = backbone, keep

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Cut the document to the budget, on token borders. Errors as ``roles.Compressor``."""
        require_text(context)
        encoded = self.backbone.tokenizer(context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets, count = encoded["offset_mapping"], len(encoded["input_ids"])
        allowed, requested = resolve_budget(count, ratio, budget)
        allowed = min(allowed, count)
        # text cut on a token border may split into more tokens than it had: give way until it fits
        for tokens in range(allowed, 0, -1):
            spans = self._spans(context, offsets, tokens)
            text = GAP.join(span.text for span in spans)
            delivered = self.backbone.count_tokens(text)
            if 0 < delivered <= allowed:
                return Compressed(count, delivered, requested, text=text, evidence=spans)
        raise BudgetError(f"A budget of {allowed} tokens leaves nothing of the document.", "Lower the factor.")

    def _spans(self, context: str, offsets: list[tuple[int, int]], tokens: int) -> list[Span]:
        count = len(offsets)
        if tokens >= count:
            return [Span(0, len(context), context)]
        head = {"head": tokens, "tail": 0, "middle": tokens // 2}[self.keep]
        tail = tokens - head
        borders = []
        if head:
            borders.append((0, offsets[head - 1][1]))
        if tail:
            borders.append((offsets[count - tail][0], len(context)))
        return [Span(start, end, context[start:end]) for start, end in borders if context[start:end].strip()]
