"""Segments with the best BM25 score."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.core.lexical import LexicalIndex
from laconic.core.segments import SegmentedText, require_question
from laconic.methods.baselines.select import SegmentSelector


class BM25(SegmentSelector):
    """Lexical selection (bm25s, its defaults, English stop words)."""

    def scores(self, segmented: SegmentedText, query: str | None) -> Sequence[float]:
        question = require_question(query)
        return LexicalIndex(segmented.segment_texts()).scores(question).tolist()
