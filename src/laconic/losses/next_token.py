"""Next-token cross-entropy that never holds the scores of many tokens at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

#: tokens whose scores over the vocabulary are held together
CHUNK = 2048
#: of them in float32: so many that a core's cache holds them
IN_CACHE = 16


def summed_next_token_loss(head: Callable[[Tensor], Tensor], outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the labels' losses, and which of them are the likeliest.

    The scores of one text can be larger than all that a decoder's layers keep for the backward pass, so they are made
    piece by piece, and again in the backward pass.

    Args:
        head: from outputs of the last layer ``[N, D]`` to scores ``[N, V]``.
        outputs: ``[N, D]``, N > 0.
        labels: int64 ``[N]``.

    Returns:
        A float32 scalar, and bool ``[N]``.
    """
    parts = [
        checkpoint(_scored, head, some, wanted, use_reentrant=False)
        for some, wanted in zip(outputs.split(CHUNK), labels.split(CHUNK), strict=True)
    ]
    return torch.stack([loss for loss, _ in parts]).sum(), torch.cat([hits for _, hits in parts])


def _scored(head: Callable[[Tensor], Tensor], outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    losses, hits = _CrossEntropy.apply(head(outputs), labels)
    return losses.sum(), hits


class _CrossEntropy(torch.autograd.Function):
    """Of scores in any precision, computed in float32, a few rows at a time on a CPU.

    PyTorch's own writes float32 scores, their logarithms and their gradient out whole, one after the other, which with
    a vocabulary of 50,000 is twice the time on a core.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        best, places = scores.max(-1)  # which in bfloat16 is several times as fast as argmax
        best = best.float()
        sums = [(rows - top[:, None]).exp_().sum(-1) for rows, top in zip(few(scores), few(best), strict=True)]
        beyond = torch.cat(sums).log_()
        ctx.save_for_backward(scores, labels, best, beyond)
        hits = places == labels
        ctx.mark_non_differentiable(hits)
        return beyond + (best - scores.gather(-1, labels[:, None])[:, 0]), hits

    @staticmethod
    @once_differentiable
    def backward(ctx, by: Tensor, _: Tensor) -> tuple[Tensor, None]:
        scores, *known = ctx.saved_tensors
        gradient = torch.empty_like(scores)
        parts = zip(*map(few, (gradient, scores, *known, by)), strict=True)
        for some, rows, label, top, more, factor in parts:
            shares = (rows - top[:, None]).sub_(more[:, None]).exp_()
            shares.scatter_add_(-1, label[:, None], shares.new_full((len(label), 1), -1.0))
            some.copy_(shares.mul_(factor[:, None]))
        return gradient, None


def few(rows: Tensor) -> tuple[Tensor, ...]:
    """Rows of a tensor, so many at a time as are computed together in float32."""
    return rows.split(IN_CACHE if rows.device.type == "cpu" else CHUNK)
