"""Log-probabilities of chosen tokens without the logits of all positions ever being there together."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from laconic.losses.next_token import few

#: from last states ``[N, D]`` to logits ``[N, V]``
Head = Callable[[Tensor], Tensor]
#: positions whose logits are held together
TOGETHER = 512


def chosen_log_probs(
    head: Head,
    hidden: Tensor,
    ids: Tensor,
    *,
    temperature: float = 1.0,
    together: int = TOGETHER,
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


def _looked_up(head: Head, hidden: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    found, entropy = _Chosen.apply(head(hidden), ids, temperature)
    return found, entropy


class _Chosen(torch.autograd.Function):
    """Of logits in any precision, computed in float32, a few rows at a time on a CPU (as ``next_token`` does)."""

    @staticmethod
    def forward(ctx, logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        best, sums, apart = logits.amax(-1).float(), [], []
        for rows, top in zip(few(logits), few(best), strict=True):
            below = (rows - top[:, None]).div_(temperature)
            mass = below.exp()
            sums.append(mass.sum(-1))
            apart.append(below.mul_(mass).sum(-1))
        total = torch.cat(sums)
        beyond = total.log()
        entropy = beyond - torch.cat(apart) / total
        ctx.save_for_backward(logits, ids, best, beyond, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return (logits.gather(-1, ids) - best[:, None]) / temperature - beyond[:, None], entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, by_found: Tensor | None, by_entropy: Tensor | None) -> tuple[Tensor, None, None]:
        logits, ids, *known = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        if by_found is None:
            by_found = known[-1].new_zeros(ids.shape)
        parts = zip(*map(few, (gradient, logits, ids, *known, by_found)), strict=True)
        pulls = repeat(None) if by_entropy is None else few(by_entropy)
        for (some, rows, chosen, top, more, entropy, by), pull in zip(parts, pulls, strict=False):
            log_probs = (rows - top[:, None]).div_(ctx.temperature).sub_(more[:, None])
            shares, factor = log_probs.exp(), by.sum(-1, keepdim=True)
            if pull is not None:
                factor = factor + (log_probs + entropy[:, None]).mul_(pull[:, None])
            shares.mul_(-factor).scatter_add_(-1, chosen, by)
            some.copy_(shares.div_(ctx.temperature))
        return gradient, None, None
