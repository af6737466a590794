"""Next-token cross-entropy that never holds the scores of many tokens at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

#: tokens whose scores over the vocabulary are held together
CHUNK = 2048


def summed_next_token_loss(head: Callable[[Tensor], Tensor], outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the labels' losses, and which of them are the likeliest.

    The scores of one text can be larger than all that a decoder's layers keep for the backward pass, so they are made
    piece by piece, and again in the backward pass.

    Args:
        head: from outputs of the last layer ``[N, D]`` to scores ``[N, V]``.
        outputs: ``[N, D]``, N > 0.
        labels: int64 ``[N]``.

    Returns:
        A scalar, and bool ``[N]``.
    """
    parts = [
        checkpoint(_scored, head, some, wanted, use_reentrant=False)
        for some, wanted in zip(outputs.split(CHUNK), labels.split(CHUNK), strict=True)
    ]
    return torch.stack([loss for loss, _ in parts]).sum(), torch.cat([hits for _, hits in parts])


def _scored(head: Callable[[Tensor], Tensor], outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    scores = head(outputs).float()
    return functional.cross_entropy(scores, labels, reduction="sum"), scores.argmax(-1) == labels
