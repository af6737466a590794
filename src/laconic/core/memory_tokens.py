"""Trainable soft tokens: a method's own rows, which enter the backbone as embeddings and never its vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MemoryTokens(nn.Module):
    """``count`` soft tokens of the backbone's width D.

    Kept in float32 whatever the backbone's dtype: in bfloat16 small updates of a small parameter are rounded away.

    Args:
        rows: ``[R, D]`` embeddings to start from, taken in turn (one row starts them all). They must come out of the
            embedding *module* (``backbone.embed(ids)``), since some, like Gemma's, scale what their weight holds.
        count: number of tokens.
        noise: standard deviation of the noise that tells tokens from the same row apart, relative to the rows' own.
        generator: source of the noise.
    """

    def __init__(
        self, rows: Tensor, count: int, *, noise: float = 0.1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        rows = rows.detach().float()
        start = rows[torch.arange(count, device=rows.device) % len(rows)]
        # drawn on the CPU: the same seed gives the same tokens on any device
        jitter = torch.randn(start.shape, generator=generator).to(rows.device)
        self.weight = nn.Parameter(start + noise * rows.std() * jitter)

    def __len__(self) -> int:
        return self.weight.shape[0]

    def forward(self, index: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Rows by number: int64 ``[...]`` -> ``[..., D]``, in ``dtype`` if given (the backbone's)."""
        return nn.functional.embedding(index, self.weight).to(dtype or self.weight.dtype)
