"""RAM's contrastive loss over the segments of one document (section 3)."""

from __future__ import annotations

import torch


def contrastive_loss(
    scores: torch.Tensor, positive: torch.Tensor, valid: torch.Tensor | None = None, *, temperature: float
) -> torch.Tensor:
    """-log( sum over positives exp(s/tau) / sum over valid exp(s/tau) ), averaged over rows that have a positive.

    The sum over positives stands inside the logarithm: one well-scored positive satisfies it.

    Args:
        scores: [Q, S] relevance.
        positive: [Q, S] bool, segments that bear the answer.
        valid: [Q, S] bool, segments that exist; all, if not given.

    Returns:
        A scalar; 0 (with a gradient of 0) where no row has a positive.
    """
    valid = torch.ones_like(positive) if valid is None else valid
    positive = positive & valid
    logits = scores.float() / temperature
    lowest = torch.finfo(torch.float32).min
    of_all = logits.masked_fill(~valid, lowest).logsumexp(-1)
    of_positive = logits.masked_fill(~positive, lowest).logsumexp(-1)
    counted = positive.any(-1)
    losses = torch.where(counted, of_all - of_positive, 0.0)
    return losses.sum() / counted.sum().clamp(min=1)
