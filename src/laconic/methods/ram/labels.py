"""Which segments bear the evidence? From character spans, never from token matches (section 5, point 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from laconic.core.segments import Range, SegmentedText


def positive_segments(segmented: SegmentedText, evidence: Sequence[Range]) -> torch.Tensor:
    """Bool [S]: the segments that overlap any evidence span; a span across a border marks both sides.

    No evidence gives an empty mask, and the contrastive loss skips the row.
    """
    starts = torch.tensor([start for start, _ in segmented.char_spans])
    ends = torch.tensor([end for _, end in segmented.char_spans])
    marked = torch.zeros(len(segmented), dtype=torch.bool)
    for start, end in evidence:
        marked |= (starts < end) & (ends > start)
    return marked
