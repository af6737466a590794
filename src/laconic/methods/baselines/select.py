"""The common part of every baseline that keeps the best segments as text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from laconic.backbone import Backbone
from laconic.core.results import Compressed, Stopwatch
from laconic.core.segments import (
    SegmentedText,
    longest_affordable_prefix,
    resolve_budget,
    segment,
    spans_of,
)
from laconic.errors import BudgetError

GAP = "\n"
SEGMENT_TOKENS = 48


class SegmentSelector(ABC):
    """Ranks the segments of a document and keeps, in order, the longest prefix of the ranking that fits."""

    query_aware = True

    def __init__(self, backbone: Backbone, segment_tokens: int = SEGMENT_TOKENS) -> None:
        self.backbone, self.segment_tokens = backbone, segment_tokens

    @property
    def settings(self) -> str:
        """What its choices follow from, beside the backbone's tokens."""
        return f"{self.segment_tokens} tokens"

    @abstractmethod
    def scores(self, segmented: SegmentedText, query: str | None) -> Sequence[float]:
        """A score for every segment; higher is kept first."""

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Keep the best segments. Errors as ``roles.Compressor``."""
        watch = Stopwatch(self.backbone.device)
        with watch("tokenize"):
            segmented = segment(self.backbone.tokenizer, context, self.segment_tokens)
        allowed, requested = resolve_budget(len(segmented.ids), ratio, budget)
        with watch("score"):
            scores = self.scores(segmented, query)
        ranking = sorted(range(len(segmented)), key=lambda index: (-scores[index], index))
        kept = longest_affordable_prefix(ranking, segmented.lengths, allowed)
        # pieces of text, joined and tokenised anew, may take more tokens than they had: give way until they fit
        while kept:
            spans = spans_of(segmented, kept, scores)
            text = GAP.join(span.text for span in spans)
            delivered = self.backbone.count_tokens(text)
            if delivered <= allowed:
                return Compressed(
                    len(segmented.ids), delivered, requested, text=text, evidence=spans, seconds=watch.seconds
                )
            kept = kept[:-1]
        raise BudgetError(
            f"A budget of {allowed} tokens is less than one segment of {self.segment_tokens}.", "Lower the factor."
        )
