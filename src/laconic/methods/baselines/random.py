"""Segments drawn by chance: what selection must beat."""

from __future__ import annotations

import random
from collections.abc import Sequence

from laconic.core.segments import SegmentedText
from laconic.methods.baselines.select import SegmentSelector


class RandomSegments(SegmentSelector):
    """A draw that depends on the document alone, so runs repeat."""

    query_aware = False

    def scores(self, segmented: SegmentedText, query: str | None) -> Sequence[float]:
        draw = random.Random(segmented.text)
        return [draw.random() for _ in range(len(segmented))]
