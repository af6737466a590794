"""BM25 over the segments of one document, by bm25s."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import bm25s
import numpy as np

# it logs every index it builds at a level of its own choosing
logging.getLogger("bm25s").setLevel(logging.WARNING)


class LexicalIndex:
    """BM25 of one document's segments; built once, asked many times."""

    def __init__(self, segment_texts: Sequence[str]) -> None:
        self.size = len(segment_texts)
        tokens = bm25s.tokenize(list(segment_texts), stopwords="en", show_progress=False)
        self._index = None
        if tokens.vocab and any(tokens.ids):  # a document of nothing but stop words has no index
            self._index = bm25s.BM25()
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """BM25 score of every segment [S]; zeros where no word of the query is known."""
        words = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)[0]
        if self._index is None or not words:
            return np.zeros(self.size, dtype=np.float32)
        return np.asarray(self._index.get_scores(words), dtype=np.float32)
