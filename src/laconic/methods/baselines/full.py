"""The whole document: what compression is measured against."""

from __future__ import annotations

from laconic.backbone import Backbone
from laconic.core.results import Compressed, Span
from laconic.core.segments import require_text


class Full:
    """Leaves the document as it is, whatever the ratio; too long a document is the reader's error to raise."""

    query_aware = False

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Return the document whole."""
        require_text(context)
        count = self.backbone.count_tokens(context)
        return Compressed(count, count, 1.0, text=context, evidence=[Span(0, len(context), context)])
