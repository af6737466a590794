"""RAM's encoder: the first K layers of the backbone, without the vocabulary head (section 2.3).

Shapes: S segments, L tokens of the longest, D width. A row holds one segment, or a few neighbours that read each other
from left to right, so the cost is linear in the document; rows of one length run together: almost nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Cache, DynamicCache, PreTrainedModel

from laconic.backbone import Backbone
from laconic.core.lora import add_lora
from laconic.core.sharing import first_layers, unshared
from laconic.methods.ram.config import RAMConfig

# tokens per forward pass: enough to keep two CPU cores or one accelerator busy, small enough to bound memory
TOKENS_PER_PASS = 3072
# segments whose states are in float32 at a time
SEGMENTS_PER_PIECE = 256


@dataclass
class States:
    """Token states of S rows: ``hidden`` [S, L, D] and ``mask`` [S, L], True on real tokens; zeros elsewhere."""

    hidden: torch.Tensor
    mask: torch.Tensor

    def pieces(self, rows: torch.Tensor | None = None) -> Iterator[States]:
        """These rows (all of them), a few hundred at a time: what works in float32 must not copy a whole book."""
        rows = torch.arange(len(self.hidden), device=self.hidden.device) if rows is None else rows
        for some in rows.split(SEGMENTS_PER_PIECE):
            yield States(self.hidden[some], self.mask[some])

    def mean(self) -> torch.Tensor:
        """Masked mean over tokens [S, D] in float32."""
        weights = self.mask.unsqueeze(-1).float()
        return (self.hidden.float() * weights).sum(1) / weights.sum(1)


class SegmentEncoder(nn.Module):
    """Encodes token sequences independently of each other, or each behind the same query (``encode="cross"``)."""

    def __init__(self, backbone: Backbone, config: RAMConfig) -> None:
        super().__init__()
        self.body: PreTrainedModel
        if config.encoder_rank:
            self.body = first_layers(backbone.base, config.encoder_layers)
            add_lora(self.body, config.encoder_rank, alpha=2 * config.encoder_rank)
        else:
            self.body = unshared(first_layers(backbone.base, config.encoder_layers))
        tokenizer = backbone.tokenizer
        special = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self.sink_id: int | None = special if config.sink_prefix else None

    def forward(self, rows: Sequence[Sequence[int]], query: Sequence[int] | None = None) -> States:
        """Encode token rows; with ``query``, each behind that query (its own states are left out).

        Args:
            rows: S token lists, none empty.

        Returns:
            States padded on the right to the longest row.
        """
        behind = self._query_cache(query) if query is not None else None
        lengths = torch.tensor([len(row) for row in rows])
        hidden: torch.Tensor | None = None
        for indices in _passes(rows):
            piece = self._run([rows[i] for i in indices], behind)
            if hidden is None:  # states of a whole book are large: every pass writes into their one place
                hidden = piece.new_zeros(len(rows), int(lengths.max()), piece.shape[-1])
            hidden[torch.tensor(indices, device=piece.device), : piece.shape[1]] = piece
        assert hidden is not None, "no rows to encode"
        mask = torch.arange(hidden.shape[1]) < lengths[:, None]
        return States(hidden, mask.to(hidden.device))

    def segments(self, ids: Sequence[int], width: int, together: int, query: Sequence[int] | None = None) -> States:
        """Encode a document cut every ``width`` tokens, ``together`` neighbouring segments to a row.

        A segment sees those before it in its row and nothing of other rows; ``together=1`` is the paper's encoder.

        Returns:
            States of the segments, [S, width, D].
        """
        stride = width * together
        rows = self([ids[start : start + stride] for start in range(0, len(ids), stride)], query)
        missing = stride - rows.mask.shape[1]  # only where the document is shorter than one row
        hidden = nn.functional.pad(rows.hidden, (0, 0, 0, missing)).unflatten(1, (together, width)).flatten(0, 1)
        mask = nn.functional.pad(rows.mask, (0, missing)).unflatten(1, (together, width)).flatten(0, 1)
        count = -(-len(ids) // width)
        return States(hidden[:count], mask[:count])

    def _run(
        self, rows: Sequence[Sequence[int]], behind: list[tuple[torch.Tensor, torch.Tensor]] | None
    ) -> torch.Tensor:
        """One pass over rows of one length: no padding, hence no mask."""
        device = self.body.get_input_embeddings().weight.device
        ids = torch.tensor(list(rows), device=device)
        prefix = 0
        cache: Cache | None = None
        if behind is not None:
            cache = DynamicCache()
            for layer, (keys, values) in enumerate(behind):
                cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), layer)
        elif self.sink_id is not None:
            ids = nn.functional.pad(ids, (1, 0), value=self.sink_id)
            prefix = 1
        out = self.body(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state[:, prefix:]

    def _query_cache(self, query: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the query, computed once for all segments: (keys, values) per layer."""
        device = self.body.get_input_embeddings().weight.device
        ids = torch.tensor([list(query)], device=device)
        if self.sink_id is not None:
            ids = nn.functional.pad(ids, (1, 0), value=self.sink_id)
        cache = DynamicCache()
        self.body(input_ids=ids, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]


def _passes(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Row indices grouped by length, each group in passes of about ``TOKENS_PER_PASS``."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(index)
    passes = []
    for length, indices in sorted(by_length.items()):
        count = max(1, TOKENS_PER_PASS // length)
        passes += [indices[start : start + count] for start in range(0, len(indices), count)]
    return passes
