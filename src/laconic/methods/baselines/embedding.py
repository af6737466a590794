"""Segments nearest to the question by sentence embeddings (all-MiniLM-L6-v2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from laconic.backbone import Backbone
from laconic.core.segments import SegmentedText, require_question
from laconic.encoder import load_encoder
from laconic.errors import QuestionError
from laconic.methods.baselines.select import SEGMENT_TOKENS, SegmentSelector

ROWS_PER_PASS = 64


class Embedding(SegmentSelector):
    """Cosine of mean-pooled sentence embeddings; the document embedded last is remembered."""

    def __init__(self, backbone: Backbone, segment_tokens: int = SEGMENT_TOKENS) -> None:
        super().__init__(backbone, segment_tokens)
        self.encoder = load_encoder(device="cpu")
        self.tokenizer, self.model = self.encoder.tokenizer, self.encoder.model
        self._last: tuple[str, torch.Tensor] | None = None

    @property
    def settings(self) -> str:
        return f"{super().settings}, {self.encoder.content_hash}"

    def scores(self, segmented: SegmentedText, query: str | None) -> Sequence[float]:
        question = require_question(query)
        if (tokens := len(self.tokenizer(question)["input_ids"])) > self.encoder.window:
            raise QuestionError(
                f"A question of {tokens} tokens is more than {self.encoder.name} reads, {self.encoder.window}.",
                "Ask a shorter one.",
            )
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
