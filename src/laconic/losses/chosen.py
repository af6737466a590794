"""Log-probabilities of chosen tokens without the logits of all positions ever being there together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

#: positions whose logits are held together
TOGETHER = 512


def chosen_log_probs(
    head: nn.Module, hidden: Tensor, ids: Tensor, *, temperature: float = 1.0, together: int = TOGETHER
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of several tokens at each position, and the entropy there.

    All of them come from one set of logits, made for ``together`` positions at a time and made again for the gradient.

    Args:
        head: from states to logits.
        hidden: last states ``[N, D]``.
        ids: tokens to look up, int64 ``[N, K]``.
        temperature: logits are divided by it.

    Returns:
        float32 ``[N, K]`` and ``[N]``.
    """
    parts = [
        checkpoint(_looked_up, head, states, wanted, temperature, use_reentrant=False)
        for states, wanted in zip(hidden.split(together), ids.split(together), strict=True)
    ]
    if not parts:
        return hidden.new_zeros(ids.shape, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.float32)
    return torch.cat([found for found, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _looked_up(head: nn.Module, hidden: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    log_probs = (head(hidden).float() / temperature).log_softmax(-1)
    return log_probs.gather(-1, ids), -(log_probs.exp() * log_probs).sum(-1)
