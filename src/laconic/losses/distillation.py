"""Learning from a teacher on the student's own outputs: guidance, divergences, advantages made of log-probabilities.

The teacher's tokens and log-probabilities are data here: no gradient goes to them. The equations are those of TGPO's
specification (arXiv 2605.13230, sections 1 to 3), and of GKD (2306.13649) and KDRL (2506.02208).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from laconic.losses.chosen import TOGETHER, Head


def guidance(log_probs: Tensor) -> Tensor:
    """TGPO's term of each position, ``[B, T]``: how surprised the student is by what the teacher would say there.

    Its gradient on the logits is ``softmax - onehot``, whatever mass the student gives the token. So it is never
    clamped: positions far from the teacher are those it is for.

    Args:
        log_probs: the student's, of the teacher's tokens.
    """
    return -log_probs


def soft_guidance(log_probs: Tensor, shares: Tensor) -> Tensor:
    """As ``guidance``, of several tokens at each position: forward KL from what the teacher finds likeliest, up to a
    constant. With one token that has all, it is ``guidance``.

    Args:
        log_probs: the student's, of the teacher's tokens, ``[B, T, K]``.
        shares: how likely the teacher finds each of them beside the others, ``[B, T, K]``; they sum to 1.
    """
    return (guidance(log_probs) * shares.detach()).sum(-1)


def reverse_kl_advantage(teacher: Tensor, old: Tensor) -> Tensor:
    """On-policy distillation as a policy gradient: ``log q(y) - log p_old(y)`` of what was said, ``[B, T]``."""
    return (teacher - old).detach()


def squared_log_ratio(teacher: Tensor, student: Tensor) -> Tensor:
    """KDRL's term (its estimator k2) of each token that was said, ``[B, T]``: ``(log q - log p) ** 2 / 2``."""
    return (teacher.detach() - student).square() / 2


def state_bonus(old: Tensor) -> Tensor:
    """TGPO's variant "Adv", ``[B, T]``: the probability of the teacher's token, whatever was said.

    It does not depend on the token that was said, so its expected gradient is zero; it is here to show that.

    Args:
        old: log-probability of the teacher's token when the answer was made.
    """
    return old.exp().detach()


def match_bonus(said: Tensor, teacher: Tensor) -> Tensor:
    """An informative variant, ``[B, T]``: 1 where what was said is the teacher's token."""
    return (said == teacher).float()


def divergence(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """GKD's divergence of each position, ``[...]``, from logits ``[..., V]``.

    Args:
        beta: 0: forward KL, of the teacher from the student; 1: reverse KL; between: generalised Jensen-Shannon, with
            the mixture ``beta * teacher + (1 - beta) * student``.
    """
    p, q = functional.log_softmax(student.float(), -1), functional.log_softmax(teacher.detach().float(), -1)
    if beta == 0:
        return _kl(q, p)
    if beta == 1:
        return _kl(p, q)
    mixed = torch.logaddexp(q + math.log(beta), p + math.log1p(-beta))
    return beta * _kl(q, mixed) + (1 - beta) * _kl(p, mixed)


def divergence_of_states(
    student: tuple[Head, Tensor],
    teacher: tuple[Head, Tensor],
    beta: float,
    *,
    temperature: float = 1.0,
    together: int = TOGETHER,
) -> Tensor:
    """GKD's divergence of each position, ``[N]``, from last states ``[N, D]`` of both.

    The logits of both are there for ``together`` positions at a time, and made again for the gradient.

    Args:
        student, teacher: the head and the states; both heads give logits over the same tokens.
        temperature: the student's logits are divided by it.
    """
    (own_head, own), (their_head, theirs) = student, teacher

    def part(states: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = their_head(targets)
        return divergence(own_head(states) / temperature, wanted, beta)

    parts = [
        checkpoint(part, states, targets, use_reentrant=False)
        for states, targets in zip(own.split(together), theirs.split(together), strict=True)
    ]
    return torch.cat(parts) if parts else own.new_zeros(0, dtype=torch.float32)


def _kl(one: Tensor, other: Tensor) -> Tensor:
    """From log-probabilities; what has none of the mass adds nothing, not 0 times infinity, to value and gradient."""
    apart = torch.where(one.isneginf(), 0.0, one - other)
    return (one.exp() * apart).sum(-1)
