"""Segments with the known evidence: what selection could reach. For evaluation only."""

from __future__ import annotations

from collections.abc import Sequence

from laconic.core.lexical import LexicalIndex
from laconic.core.results import Compressed
from laconic.core.segments import Range, SegmentedText, require_question
from laconic.errors import DataError
from laconic.methods.baselines.select import SegmentSelector


class Oracle(SegmentSelector):
    """Evidence first, BM25 for the rest of the budget."""

    needs_evidence = True

    def compress(
        self,
        context: str,
        query: str | None = None,
        *,
        ratio: float | None = None,
        budget: int | None = None,
        evidence: Sequence[Range] = (),
    ) -> Compressed:
        """As ``SegmentSelector.compress``, with the character spans that bear the answer.

        Raises:
            DataError: there are none; without them this would be BM25 under another name.
        """
        self._evidence = evidence
        return super().compress(context, query, ratio=ratio, budget=budget)

    def scores(self, segmented: SegmentedText, query: str | None) -> Sequence[float]:
        question = require_question(query)
        if not self._evidence:
            raise DataError("No evidence is known for this question.", "Leave the oracle out.")
        lexical = LexicalIndex(segmented.segment_texts()).scores(question)
        above = float(lexical.max()) + 1.0
        return [
            float(score) + above * any(start < b and a < end for a, b in self._evidence)
            for score, (start, end) in zip(lexical, segmented.char_spans, strict=True)
        ]
